"""Our scores as metrics of Hugging Face `evaluate`: `hf_metric("bleu").compute(predictions=..., references=...)`.
`evaluate.combine([hf_metric("bleu"), hf_metric("ppl", model="gpt2-large")])` computes several at once. Every metric of
the registry is available, and the statistics of the texts as `degeneracy`."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from elfcli.scoring import MODULES, metric
from elfcli.scoring.protocol import PAPER
from elfcli.scoring.report import counted
from elfcli.scoring.score import ScoreOptions, Texts

DEGENERACY = "degeneracy"
NAMES = (*(name for name in MODULES if name != "gaps"), DEGENERACY)  # gaps need templates
JUDGE_OPTIONS = ("model", "tokenizer", "batch_size", "max_length", "dtype")


class HfMetric(evaluate.Metric):
    """A score of elf, by its name or `degeneracy`; KeyError for others. Figures have names that `evaluate.combine` can
    tell apart: bleu, bleu_interval, ... model, tokenizer, batch_size, max_length: the judge of metrics that use one."""

    def __init__(self, name: str, *, protocol: str = PAPER, **options: Any):
        if name not in NAMES:
            raise KeyError(f"{name}: not a metric of elf; there are {', '.join(NAMES)}")
        self.score = None if name == DEGENERACY else metric(name)
        judge, of_judge = None, {key: options.pop(key) for key in JUDGE_OPTIONS if key in options}
        if self.score is not None and self.score.uses_judge:
            from elfcli.scoring.judge import Judge

            judge = Judge(**of_judge)
        self.options = ScoreOptions(protocol, judge=judge)
        super().__init__(config_name=name, **options)

    def _info(self) -> evaluate.MetricInfo:
        compares = self.score is not None and self.score.needs != "nothing"
        columns = ("predictions", "references") if compares else ("predictions",)
        description = self.score.description if self.score is not None else (
            "Shares of empty, degenerate and duplicate texts, words per text, distinct 1, 2 and 4-grams.")  # fmt: skip
        features = datasets.Features({name: datasets.Value("string") for name in columns})
        return evaluate.MetricInfo(description=description, citation="", inputs_description="", features=features)

    def _compute(self, predictions: Sequence[str], references: Sequence[str] | None = None) -> dict[str, Any]:
        if self.score is None:
            return dict(counted(tuple(predictions)))
        found = self.score.compute(Texts(predictions, references, references), self.options)
        name, value = found.names
        figures = {key: figure for key, figure in found.as_dict().items() if key not in ("metric", "value", value)}
        own = {key: figures.pop(key) for key in self.score.columns if key in figures}
        return {value: getattr(found, value)} | own | {f"{name}_{key}": figure for key, figure in figures.items()}


hf_metric = HfMetric
