"""Our scores as local metrics of Hugging Face `evaluate`: `evaluate.load(elfcli.metrics.folder("bleu"))`."""

from pathlib import Path
from typing import Any

from elfcli.scoring.score import Score

NAMES = ("bleu", "rouge", "gen_ppl", "entropy", "degeneracy", "mauve")


class Judged:
    """Options of a metric that takes a judge, to stand before `evaluate.Metric`, which would be loaded as a metric."""

    def __init__(self, *args, model="gpt2-large", tokenizer=None, batch_size=8, max_length=1024, **more):
        from elfcli.scoring.judge import Judge

        self.judge = Judge(model, tokenizer, batch_size, max_length)
        super().__init__(*args, **more)


def info(description: str, *columns: str) -> Any:
    """What `evaluate` asks of a metric whose input is texts in these columns."""
    import datasets
    import evaluate

    features = datasets.Features({name: datasets.Value("string") for name in columns})
    return evaluate.MetricInfo(description=description, citation="", inputs_description="", features=features)


def folder(name: str) -> str:
    """Where the metric lies, as `evaluate.load` and `evaluate.combine` take it; KeyError for another name."""
    if name not in NAMES:
        raise KeyError(f"{name}: no metric of elf; there are {', '.join(NAMES)}")
    return str(Path(__file__).parent / name)


def named(score: Score) -> dict[str, Any]:
    """A score's figures under names that `evaluate.combine` can tell apart: bleu, bleu_interval, bleu_signature, ..."""
    metric, value = score.names
    found = {name: figure for name, figure in score.as_dict().items() if name not in ("metric", "value", value)}
    return {value: getattr(score, value)} | {f"{metric}_{name}": figure for name, figure in found.items()}
