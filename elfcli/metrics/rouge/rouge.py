"""ROUGE as `elf eval-rouge` computes it."""

import evaluate

from elfcli.metrics import info, named
from elfcli.scoring.rouge import rouge

DESCRIPTION = "ROUGE-1, 2 and L: rouge_score with stemmer, mean F1 x 100, with a bootstrap 95% interval."


class Rouge(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return info(DESCRIPTION, "predictions", "references")

    def _compute(self, predictions, references) -> dict:
        return named(rouge(predictions, references))
