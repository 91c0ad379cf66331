"""Generative perplexity as `elf eval-ppl` computes it: `evaluate.load(folder, model="gpt2-large")`."""

import datasets
import evaluate

from elfcli.evaluation.perplexity import Judge, perplexity
from elfcli.metrics import named

DESCRIPTION = "Perplexity and unigram entropy under a language model, with a bootstrap 95% interval."


class GenPpl(evaluate.Metric):
    def __init__(self, *args, model="gpt2-large", tokenizer=None, batch_size=8, max_length=1024, **more):
        self.judge = Judge(model, tokenizer, batch_size, max_length)
        super().__init__(*args, **more)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description="", features=features)

    def _compute(self, predictions) -> dict:
        found = named(perplexity(predictions, self.judge))
        return {name.replace("ppl_entropy", "entropy"): figure for name, figure in found.items()}
