"""Empty, degenerate and duplicate texts, words and distinct phrases, as every report has them."""

import datasets
import evaluate

from elfcli.evaluation.report import counted

DESCRIPTION = "Shares of empty, degenerate and duplicate texts, words per text, distinct 1, 2 and 4-grams."


class Degeneracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description="", features=features)

    def _compute(self, predictions) -> dict:
        return dict(counted(tuple(predictions)))
