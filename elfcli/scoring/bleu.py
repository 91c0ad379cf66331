"""BLEU as the reference (github.com/lillian039/ELF) computes it: sacrebleu's, lowercase, effective order; chrF."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from elfcli.errors import InputError, did_you_mean
from elfcli.scoring.bootstrap import resampled
from elfcli.scoring.protocol import AUTO, PAPER, SACREBLEU, UNICODE, bleu_tokenizer, check_protocol, protocol_part
from elfcli.scoring.samples_file import Reference, several
from elfcli.scoring.score import Metric, Score, check_paired
from elfcli.ui.progress import say


@dataclass(frozen=True)
class BleuResult(Score, metric="bleu", value="bleu"):
    """BLEU and chrF from 0 to 100. signature: sacrebleu's own, which names every choice and its version, and the
    protocol."""

    bleu: float
    chrf: float
    num_samples: int
    brevity_penalty: float
    signature: str


def corpus_bleu(
    generated: Sequence[str], references: Sequence[Reference], protocol: str = PAPER, tokenizer: str | None = None
) -> BleuResult:
    """Return BLEU and chrF of all texts, each with one reference or several.

    tokenizer: sacrebleu's, by default that of the protocol.
    Raises InputError for other numbers of texts, none, a protocol or tokenizer that does not exist, or one that is not
    installed.
    """
    check_paired(generated, references)
    suited = bleu_tokenizer(tuple(text for reference in references for text in several(reference)))
    if check_protocol(protocol, METRIC.name, (AUTO, *METRIC.protocols)) == AUTO:
        protocol = PAPER if (tokenizer or suited) == "13a" else UNICODE
    chosen = tokenizer or (suited if protocol == UNICODE else "13a")
    if chosen == "13a" and suited not in ("13a", "intl"):
        say("warning: BLEU with the tokenizer 13a takes text without spaces, as in these references, as one word; "
            "pass --protocol unicode")  # fmt: skip
    metric = bleu_metric(protocol, chosen)
    # The steps of `corpus_score`: the interval needs its counts per text.
    counts = metric._extract_corpus_statistics(list(generated), streams_of(references))
    score = metric._aggregate_and_compute(counts)

    def formula(sums_RxK: np.ndarray) -> np.ndarray:
        return np.array([metric._compute_score_from_stats(sums.tolist()).score for sums in sums_RxK])

    named = protocol_part(["tokenizer"]) if protocol == PAPER and chosen != "13a" else f"protocol:{protocol}"
    signature = f"{metric.get_signature()}|{named}"
    return BleuResult(score.score, corpus_chrf(generated, references), len(generated), score.bp, signature,
                      resampled=resampled(counts, formula))  # fmt: skip


def streams_of(references: Sequence[Reference]) -> list[list[Any]]:
    """Return references as sacrebleu takes them: the first of each text, the second of each, and so on."""
    return [list(stream) for stream in zip_longest(*map(several, references))]


def bleu_metric(protocol: str = PAPER, tokenizer: str = "13a") -> Any:
    """Return sacrebleu's metric with the choices of a protocol. Raise InputError for a tokenizer that it lacks."""
    from sacrebleu.metrics import BLEU

    if tokenizer not in BLEU.TOKENIZERS:
        known = ", ".join(BLEU.TOKENIZERS)
        raise InputError(f"--tokenizer {tokenizer}: expected one of {known}{did_you_mean(tokenizer, BLEU.TOKENIZERS)}")
    ours = protocol != SACREBLEU
    try:  # force: no warning about tokenized-looking text
        return BLEU(lowercase=ours, effective_order=ours, force=True, tokenize=tokenizer)
    except (ImportError, RuntimeError, OSError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"--tokenizer {tokenizer}: not available ({why}); install it, or use --tokenizer char"
        ) from None


def corpus_chrf(generated: Sequence[str], references: Sequence[Reference]) -> float:
    """Return sacrebleu's chrF2 of all texts: character 6-grams, which no tokenizer precedes."""
    from sacrebleu.metrics import CHRF

    return CHRF().corpus_score(list(generated), streams_of(references)).score


def exact_match(generated: Sequence[str], references: Sequence[str]) -> float:
    """Return the share (0 to 1) of texts equal to their reference up to surrounding white space."""
    check_paired(generated, references)
    return sum(a.strip() == b.strip() for a, b in zip(generated, references, strict=True)) / len(generated)


METRIC = Metric(
    "bleu",
    label="BLEU",
    description="sacrebleu corpus BLEU, lowercase, effective order",
    columns={"bleu": "BLEU", "chrf": "chrF"},
    compute=lambda texts, options: corpus_bleu(
        texts.generated, texts.references or (), options.protocol, options.tokenizer
    ),
    needs="references",
    protocols=(PAPER, SACREBLEU, UNICODE),
)
