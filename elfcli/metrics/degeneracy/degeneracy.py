"""Empty, degenerate and duplicate texts, words and distinct phrases, as every report has them."""

import evaluate

from elfcli.metrics import info
from elfcli.scoring.report import counted

DESCRIPTION = "Shares of empty, degenerate and duplicate texts, words per text, distinct 1, 2 and 4-grams."


class Degeneracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return info(DESCRIPTION, "predictions")

    def _compute(self, predictions) -> dict:
        return dict(counted(tuple(predictions)))
