"""Scores of filled gaps, by kind, beside two fills that need no network.

BLEU and ROUGE-L are of the gaps' texts alone, of those whose real text is not empty. The perplexity is that of the
whole text. `bigram` continues the known text before a gap with the most frequent next token of the training data, for
as many tokens as the real gap has; `another` takes the gaps of the next text of the same kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from elfcli.data.plain_text import plain_encoder
from elfcli.data.templates import Template, gap_texts, known_tokens, parsed
from elfcli.errors import InputError
from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.bootstrap import interval, means
from elfcli.scoring.judge import NGRAM, Judge
from elfcli.scoring.ngram import NgramJudge, load_ngram_judge
from elfcli.scoring.perplexity import perplexity
from elfcli.scoring.protocol import PAPER, UNICODE
from elfcli.scoring.rouge import rouge
from elfcli.scoring.score import Metric, Score, ScoreOptions, Texts
from elfcli.scoring.text_quality import degenerate
from elfcli.ui.table import aligned

ALL, FILLED, REAL, ANOTHER, BIGRAM = "all", "filled", "real text", "another", "bigram"
FIGURES = {"exact": "exact %", "bleu": "BLEU", "rouge": "ROUGE-L", "length_error": "words off", "empty_gaps": "empty %",
           "degenerate_gaps": "degenerate %", "ppl": "perplexity"}  # fmt: skip
"""Figures of a fill, and their headings."""


class GapRow(NamedTuple):
    """A template with the texts of its gaps: written ones and real ones. kind: "" if it is unknown."""

    template: Template
    gaps: Sequence[str]
    real: Sequence[str]
    kind: str


@dataclass(frozen=True)
class GapResult(Score, metric="gaps", value="bleu"):
    """Figures of the gaps (FIGURES), intervals of some, and `by_kind` those of each fill and kind of gap."""

    bleu: float
    exact: float
    rouge: float
    length_error: float
    empty_gaps: float
    degenerate_gaps: float
    ppl: float | None
    num_samples: int
    num_gaps: int
    signature: str
    intervals: dict
    by_kind: list[dict]


def gap_rows(rows: Sequence[dict], where: str = "samples") -> list[GapRow]:
    """Return the gaps of samples. Raises InputError for a row without a template, gaps, or their real texts."""
    found = []
    for number, row in enumerate(rows, 1):
        at = f"{where}:{number}"
        if not isinstance(row.get("template"), str) or not isinstance(row.get("gaps"), list):
            raise InputError(f"{at}: no 'template' and 'gaps'; `elf sample --template` writes them")
        template = parsed(row["template"], at)
        real = row.get("reference_gaps")
        if real is None:
            if not isinstance(row.get("reference"), str):
                raise InputError(f"{at}: neither 'reference_gaps' nor a 'reference', the whole real text")
            real = template.read(row["reference"])
        if real is None or len(real) != len(template.sizes) or len(row["gaps"]) != len(real):
            raise InputError(f"{at}: its gaps or real text do not fit its template {row['template'][:60]!r}")
        found.append(GapRow(template, row["gaps"], real, str(row.get("kind", ""))))
    if not found:
        raise InputError(f"{where}: no samples: nothing to score")
    return found


def another(rows: Sequence[GapRow]) -> list[list[str]]:
    """Return for each text the gaps that follow its own in the list of all real gaps."""
    pool = [gap for row in rows for gap in row.real]
    ends = np.cumsum([len(row.real) for row in rows]).tolist()
    return [[pool[(end + j) % len(pool)] for j in range(len(row.real))] for row, end in zip(rows, ends, strict=True)]


def bigram(rows: Sequence[GapRow], judge: NgramJudge) -> list[list[str]]:
    """Return for each text the greedy continuations of what is known before each gap, as long as the real gaps."""
    counts, edge, tokenizer = judge.model.orders[1], judge.model.base - 1, judge.tokenizer
    before, after = np.divmod(counts.grams, judge.model.base)
    order = np.lexsort((after, counts.counts, before))
    order = order[after[order] != edge]
    best = dict(zip(before[order].tolist(), after[order].tolist(), strict=True))  # the last one is the most frequent
    common = int(np.argmax(judge.model.orders[0].counts[:-1]))
    usual, texts = int(judge.model.orders[0].grams[common]), []
    for row in rows:
        last, fills = edge, []
        lengths = map(len, plain_encoder(tokenizer)(row.real))
        for known, length in zip(known_tokens(tokenizer, row.template), lengths, strict=False):
            last = known[-1] if known else last
            fills.append([last := best.get(last, usual) for _ in range(length)])
            last = fills[-1][-1] if fills[-1] else last
        texts.append(gap_texts(tokenizer, row.template, fills, clean_up=False))
    return texts


def figures(rows: Sequence[GapRow], options: ScoreOptions) -> dict[str, Any]:
    """Return FIGURES of the rows' gaps, and `draws` of those that have an interval."""
    pairs = [(gap.strip(), real.strip()) for row in rows for gap, real in zip(row.gaps, row.real, strict=True)]
    full = [pair for pair in pairs if pair[1]]
    draws: dict[str, Any] = {"exact": means([[100.0 * (gap == real)] for gap, real in pairs])[0]}
    found: dict[str, Any] = {
        "gaps": len(pairs),
        "exact": 100 * fmean(gap == real for gap, real in pairs),
        "length_error": fmean(abs(len(gap.split()) - len(real.split())) for gap, real in pairs),
        "empty_gaps": 100 * fmean(not gap and bool(real) for gap, real in pairs),
        "degenerate_gaps": 100 * fmean(degenerate(gap) for gap, _ in pairs),
        "bleu": None, "rouge": None, "ppl": None, "draws": draws, "signatures": [],
    }  # fmt: skip
    if full:
        gaps, real = map(list, zip(*full, strict=True))
        scores: list[Any] = [corpus_bleu(gaps, real, options.protocol), rouge(gaps, real, options.protocol)]
        found |= {"bleu": scores[0].bleu, "rouge": scores[1].rougeL}
        draws |= {"bleu": scores[0].resampled, "rouge": scores[1].resampled}
        found["signatures"] = [score.signature for score in scores]
    wholes = [row.template.filled(row.gaps) for row in rows]
    if options.judge is not None and any(map(str.strip, wholes)):
        score = perplexity(wholes, options.judge)
        found["ppl"], draws["ppl"] = score.ppl, score.resampled
        found["signatures"].append(score.signature)
    return found


def compute(texts: Texts, options: ScoreOptions) -> GapResult:
    """Score the gaps of the samples' rows. The judge's data, if it is here, gives the bigrams."""
    rows, judge = gap_rows(texts.rows), options.judge
    if judge is not None and judge.data is None and judge.model == NGRAM:
        options = replace(options, judge=None)
    fills = {FILLED: rows, REAL: [row._replace(gaps=row.real) for row in rows]}
    if judge is not None and judge.data is not None:
        counted = load_ngram_judge(judge.data, judge.tokenizer if judge.model == NGRAM else None)
        fills[BIGRAM] = [row._replace(gaps=gaps) for row, gaps in zip(rows, bigram(rows, counted), strict=True)]
    kinds = [kind for kind in dict.fromkeys(row.kind for row in rows) if kind]
    by_kind: list[dict] = []
    of_all: dict[str, Any] = {}
    for kind in (ALL, *kinds):
        chosen = [number for number, row in enumerate(rows) if kind in (ALL, row.kind)]
        same = {name: [fill[number] for number in chosen] for name, fill in fills.items()}
        same[ANOTHER] = [row._replace(gaps=gaps) for row, gaps in
                         zip(same[FILLED], another(same[FILLED]), strict=True)]  # fmt: skip
        for name, some in same.items():
            found = figures(some, options)
            of_all = found if (kind, name) == (ALL, FILLED) else of_all
            by_kind.append({"kind": kind, "fill": name, "texts": len(some), "gaps": found["gaps"]}
                           | {figure: found[figure] for figure in FIGURES})  # fmt: skip
    draws = of_all["draws"]
    return GapResult(
        **{figure: of_all[figure] for figure in FIGURES}, num_samples=len(rows), num_gaps=of_all["gaps"],
        signature="|".join(["metric:gaps", *of_all["signatures"]]), by_kind=by_kind,
        intervals={name: interval(draws[name]) for name in ("exact", "rouge", "ppl") if name in draws},
        resampled=draws.get("bleu", ()),
    )  # fmt: skip


def table(by_kind: Sequence[dict]) -> str:
    """Return the figures of each fill and kind of gap as lines."""
    rows = [["gaps", "fill", "texts", "gaps", *FIGURES.values()]]
    for one in by_kind:
        cells = ["-" if one[figure] is None else f"{one[figure]:,.1f}" for figure in FIGURES]
        rows.append([one["kind"], one["fill"], f"{one['texts']:,}", f"{one['gaps']:,}", *cells])
    return "\n".join(aligned(rows, numbers=range(2, 4 + len(FIGURES))))


def _check(num_texts: int, num_real: int, judge: Judge) -> None:
    if judge.data is not None:
        load_ngram_judge(judge.data, judge.tokenizer if judge.model == NGRAM else None)


METRIC = Metric(
    "gaps",
    label="Gaps (BLEU)",
    description="BLEU of filled gaps; exact match, ROUGE-L, length and perplexity beside two baselines",
    columns={
        "gaps": "gap BLEU",
        "exact": "exact %",
        "rouge": "ROUGE-L",
        "length_error": "words off",
        "ppl": "perplexity",
    },
    compute=compute,
    needs="gaps",
    protocols=(PAPER, UNICODE),
    uses_judge=True,
    check=_check,
)
