"""ROUGE-1/2/L as the reference (github.com/lillian039/ELF) computes it: rouge_score, stemmer, mean F1 x 100."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean

from elfcli.evaluation.samples import Score, check_paired

KINDS = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class RougeResult(Score, metric="rouge", value="rougeL"):
    """Mean F1 over the samples, 0..100."""

    rouge1: float
    rouge2: float
    rougeL: float
    num_samples: int
    signature: str


def rouge(generated: Sequence[str], references: Sequence[str]) -> RougeResult:
    """ROUGE of texts against one reference each. InputError if the numbers of texts differ or are 0."""
    from rouge_score.rouge_scorer import RougeScorer

    check_paired(generated, references)
    scorer = RougeScorer(KINDS, use_stemmer=True)
    scores = [scorer.score(reference, text) for text, reference in zip(generated, references, strict=True)]
    means = {kind: 100 * fmean(score[kind].fmeasure for score in scores) for kind in KINDS}
    signature = f"rouge_score {version('rouge-score')}, stemmer, mean F1"
    return RougeResult(**means, num_samples=len(generated), signature=signature)
