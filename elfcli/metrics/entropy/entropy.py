"""Unigram entropy as `elf eval-ppl` computes it: `evaluate.load(folder, tokenizer="gpt2-large")`."""

import evaluate

from elfcli.metrics import info
from elfcli.scoring.perplexity import entropy

DESCRIPTION = "Mean entropy (nats) of the unigram distribution of the tokens of a text."


class Entropy(evaluate.Metric):
    def __init__(self, *args, tokenizer="gpt2-large", max_length=1024, **more):
        self.tokenizer, self.max_length = tokenizer, max_length
        super().__init__(*args, **more)

    def _info(self) -> evaluate.MetricInfo:
        return info(DESCRIPTION, "predictions")

    def _compute(self, predictions) -> dict:
        return {"entropy": entropy(predictions, self.tokenizer, self.max_length)}
