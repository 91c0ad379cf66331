"""Our scores as local metrics of Hugging Face `evaluate`: `evaluate.load(elfcli.metrics.folder("bleu"))`."""

from pathlib import Path
from typing import Any

from elfcli.evaluation.samples import Score

NAMES = ("bleu", "rouge", "gen_ppl", "entropy", "degeneracy", "mauve")


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
