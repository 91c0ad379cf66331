"""MAUVE with the features of a judge of ours: `evaluate.load(folder, model="gpt2-large")`."""

import evaluate

from elfcli.metrics import Judged, info, named
from elfcli.scoring.mauve import mauve

DESCRIPTION = "How near texts are to real ones in a language model's features; compare equal numbers of texts only."


class Mauve(Judged, evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return info(DESCRIPTION, "predictions", "references")

    def _compute(self, predictions, references) -> dict:
        return named(mauve(predictions, references, self.judge))
