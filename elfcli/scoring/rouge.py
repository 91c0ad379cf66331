"""ROUGE-1/2/L as the reference (github.com/lillian039/ELF) computes it: rouge_score, stemmer, mean F1 x 100."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean

from elfcli.scoring.bootstrap import interval, means
from elfcli.scoring.protocol import AUTO, MAX_LOST, PAPER, UNICODE, check_protocol, lost_share, unicode_words
from elfcli.scoring.samples_file import Reference, several
from elfcli.scoring.score import Metric, Score, check_paired
from elfcli.ui.progress import say

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class RougeResult(Score, metric="rouge", value="rougeL"):
    """Mean F1 over the samples, from 0 to 100. intervals: of rouge1 and rouge2."""

    rouge1: float
    rouge2: float
    rougeL: float
    num_samples: int
    signature: str
    intervals: dict


class UnicodeTokenizer:
    """Words of any script, for rouge_score, whose own tokenizer drops all letters but a to z."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words, without stemming, which is for English only."""
        return unicode_words(text)


def rouge(generated: Sequence[str], references: Sequence[Reference], protocol: str = PAPER) -> RougeResult:
    """Return ROUGE of texts, by the best reference of each.

    Raises InputError for other numbers of texts, none, or another protocol.
    """
    from rouge_score.rouge_scorer import RougeScorer

    check_paired(generated, references)
    lost = lost_share([text for reference in references for text in several(reference)])
    if check_protocol(protocol, METRIC.name, (AUTO, *METRIC.protocols)) == AUTO:
        protocol = UNICODE if lost > MAX_LOST else PAPER
    elif protocol == PAPER and lost > MAX_LOST:
        say(f"warning: ROUGE by --protocol paper ignores {lost:.1%} of the references' letters: it knows only a to z; "
            "pass --protocol unicode")  # fmt: skip
    paper = protocol == PAPER
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=paper, tokenizer=None if paper else UnicodeTokenizer())
    scores = [
        scorer.score_multi(several(reference), text) for text, reference in zip(generated, references, strict=True)
    ]
    parts = [[100 * score[kind].fmeasure for kind in ROUGE_TYPES] for score in scores]
    values = dict(zip(ROUGE_TYPES, map(fmean, zip(*parts, strict=True)), strict=True))
    draws = dict(zip(ROUGE_TYPES, means(parts), strict=True))
    kind = "stemmer:yes" if paper else "stemmer:no|tok:unicode"
    signature = f"metric:rouge|protocol:{protocol}|version:rouge_score {version('rouge-score')}|{kind}|mean:F1"
    intervals = {kind: interval(draws[kind]) for kind in ROUGE_TYPES[:2]}
    return RougeResult(**values, num_samples=len(generated), signature=signature, intervals=intervals,
                       resampled=draws["rougeL"])  # fmt: skip


METRIC = Metric(
    "rouge",
    label="ROUGE-L",
    description="rouge_score with stemmer, mean F1 x 100",
    columns={"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"},
    compute=lambda texts, options: rouge(texts.generated, texts.references or (), options.protocol),
    needs="references",
    protocols=(PAPER, UNICODE),
)
