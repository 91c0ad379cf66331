"""BLEU as `elf eval-bleu` computes it."""

import evaluate

from elfcli.metrics import info, named
from elfcli.scoring.bleu import corpus_bleu

DESCRIPTION = "Corpus BLEU: sacrebleu, lowercase, effective order, with a bootstrap 95% interval."


class Bleu(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return info(DESCRIPTION, "predictions", "references")

    def _compute(self, predictions, references) -> dict:
        return named(corpus_bleu(predictions, references))
