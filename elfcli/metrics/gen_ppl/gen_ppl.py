"""Generative perplexity as `elf eval-ppl` computes it: `evaluate.load(folder, model="gpt2-large")`."""

import evaluate

from elfcli.metrics import Judged, info, named
from elfcli.scoring.perplexity import perplexity

DESCRIPTION = "Perplexity and unigram entropy under a language model, with a bootstrap 95% interval."


class GenPpl(Judged, evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return info(DESCRIPTION, "predictions")

    def _compute(self, predictions) -> dict:
        found = named(perplexity(predictions, self.judge))
        return {name.replace("ppl_entropy", "entropy"): figure for name, figure in found.items()}
