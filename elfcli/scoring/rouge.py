"""ROUGE-1/2/L as the reference (github.com/lillian039/ELF) computes it: rouge_score, stemmer, mean F1 x 100."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean

from elfcli.scoring.bootstrap import interval, means
from elfcli.scoring.protocol import protocol_part
from elfcli.scoring.score import Metric, Reference, Score, check_paired, several

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


def rouge(generated: Sequence[str], references: Sequence[Reference]) -> RougeResult:
    """Return ROUGE of texts, by the best reference of each. Raises InputError if their numbers differ or are 0."""
    from rouge_score.rouge_scorer import RougeScorer

    check_paired(generated, references)
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
    scores = [
        scorer.score_multi(several(reference), text) for text, reference in zip(generated, references, strict=True)
    ]
    parts = [[100 * score[kind].fmeasure for kind in ROUGE_TYPES] for score in scores]
    values = dict(zip(ROUGE_TYPES, map(fmean, zip(*parts, strict=True)), strict=True))
    draws = dict(zip(ROUGE_TYPES, means(parts), strict=True))
    signature = f"metric:rouge|{protocol_part()}|version:rouge_score {version('rouge-score')}|stemmer:yes|mean:F1"
    intervals = {kind: interval(draws[kind]) for kind in ROUGE_TYPES[:2]}
    return RougeResult(**values, num_samples=len(generated), signature=signature, intervals=intervals,
                       resampled=draws["rougeL"])  # fmt: skip


METRIC = Metric(
    "rouge",
    label="ROUGE-L",
    description="rouge_score with stemmer, mean F1 x 100",
    columns={"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"},
    compute=lambda texts, options: rouge(texts.generated, texts.references or ()),
    needs="references",
)
