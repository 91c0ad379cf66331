"""Published figures and the networks' numbers of parameters, read from configs/published.toml."""

import tomllib
from dataclasses import dataclass

from elfcli.config.presets import presets_dir
from elfcli.weights.names import PUBLISHED, STUDENTS

_DATA = tomllib.loads((presets_dir() / "published.toml").read_text(encoding="utf-8"))
VOCABULARY: int = _DATA["vocabulary"]
PARAMETERS: dict[str, int] = _DATA["parameters"]


@dataclass(frozen=True)
class PublishedScore:
    """A published score. approximate: the paper rounds it ("about"). steps: network steps of the sampler."""

    checkpoint: str
    metric: str
    value: float
    split: str
    sampler: str
    steps: int
    how: str
    approximate: bool = False

    def __str__(self) -> str:
        digits = 2 if self.metric == "entropy" else 1
        return f"{self.metric} {'about ' if self.approximate else ''}{self.value:.{digits}f}"


PUBLISHED_SCORES = tuple(
    PublishedScore(entry["checkpoint"], metric, value, entry["split"], sampler.lower(), int(steps), entry["sampling"],
                   entry.get("approximate", False))
    for entry in _DATA["scores"]
    for sampler, steps, *_ in [entry["sampling"].split()]
    for metric, value in entry["values"].items()
)  # fmt: skip


def published_scores(task: str | None, model: str | None, student: str | None = None) -> list[PublishedScore]:
    """Return the published figures of a task and model preset, or of this student distilled from it."""
    scores = [score for score in PUBLISHED_SCORES if PUBLISHED[score.checkpoint] == (task, model)]
    return [one for one in scores if (one.checkpoint if one.checkpoint in STUDENTS else None) == student]


def summary(figures: list[PublishedScore]) -> list[str]:
    """Return a line per split and sampling setting: `bleu 26.4 (test; ODE 64 steps, CFG 2, w 1)`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for figure in figures:
        groups.setdefault((figure.split, figure.how), []).append(str(figure))
    return [f"{'  '.join(texts)}  ({split}; {how})" for (split, how), texts in groups.items()]
