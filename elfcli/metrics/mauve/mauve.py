"""MAUVE with the features of a judge of ours: `evaluate.load(folder, model="gpt2-large")`."""

import datasets
import evaluate

from elfcli.evaluation.mauve import mauve
from elfcli.evaluation.perplexity import Judge
from elfcli.metrics import named

DESCRIPTION = "How near texts are to real ones in a language model's features; compare equal numbers of texts only."


class Mauve(evaluate.Metric):
    def __init__(self, *args, model="gpt2-large", tokenizer=None, batch_size=8, max_length=1024, **more):
        self.judge = Judge(model, tokenizer, batch_size, max_length)
        super().__init__(*args, **more)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description="", features=features)

    def _compute(self, predictions, references) -> dict:
        return named(mauve(predictions, references, self.judge))
