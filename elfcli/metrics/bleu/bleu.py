"""BLEU as `elf eval-bleu` computes it."""

import datasets
import evaluate

from elfcli.evaluation.bleu import corpus_bleu
from elfcli.metrics import named

DESCRIPTION = "Corpus BLEU: sacrebleu, lowercase, effective order, with a bootstrap 95% interval."


class Bleu(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description="", features=features)

    def _compute(self, predictions, references) -> dict:
        return named(corpus_bleu(predictions, references))
