"""Published figures, each with its split and way of sampling, and the networks' numbers of parameters.

The figures are those of the ELF paper, arXiv 2605.10938; those of the student, which was distilled from ELF-B-owt, are
the authors' (github.com/lillian039/ELF, branch `distillation`).
"""

from dataclasses import dataclass

from elfcli.weights.names import PUBLISHED, STUDENTS

VOCABULARY = 32100
"""Tokens of T5-small's tokenizer, which every published model uses."""
PARAMETERS = {"ELF-XS": 18_058_252, "ELF-S": 23_933_956, "ELF-B": 104_579_940, "ELF-M": 342_540_036,
              "ELF-L": 652_103_332}  # fmt: skip
"""Parameters of each model preset with T5-small's width (512) and vocabulary: counted by tests/test_tasks.py, and
written here because counting imports JAX."""


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


def _figures(checkpoint: str, split: str, how: str, approximate: bool = False, **values: float) -> list[PublishedScore]:
    sampler, steps = how.split()[:2]
    return [
        PublishedScore(checkpoint, metric, value, split, sampler.lower(), int(steps), how, approximate)
        for metric, value in values.items()
    ]


FREE_SAMPLES = "1,000 free samples"
COND = "ODE 64 steps, CFG 2, w 1"
PUBLISHED_SCORES = (
    *_figures("ELF-B-owt", FREE_SAMPLES, "SDE 32 steps, gamma 1.5, w 3", ppl=24.1, entropy=5.15),
    *(
        figure
        for steps, ppl, entropy in (
            (32, 21.32, 5.04),
            (16, 22.12, 5.06),
            (8, 23.18, 5.07),
            (4, 34.33, 5.16),
            (2, 68.25, 5.24),
            (1, 136.10, 5.26),
        )
        for figure in _figures(
            "ELF-B-PD-owt",
            FREE_SAMPLES,
            f"SDE {steps} steps, {'gamma 1.5, w 2.5' if steps <= 8 else 'gamma 2, w 2'}",
            ppl=ppl,
            entropy=entropy,
        )
    ),
    *_figures("ELF-M-owt", FREE_SAMPLES, "SDE 64 steps, gamma 1.0", ppl=21.7, entropy=5.18),
    *_figures("ELF-L-owt", FREE_SAMPLES, "SDE 64 steps", ppl=23.3, entropy=5.28),
    *_figures("ELF-B-de-en", "test", COND, bleu=26.4),
    *_figures("ELF-B-de-en", "validation", COND, True, bleu=26.7),
    *_figures("ELF-B-xsum", "test", COND, rouge1=36.0, rouge2=12.2, rougeL=27.8),
    *_figures("ELF-B-xsum", "validation", COND, True, rouge1=36.3, rouge2=12.5, rougeL=28.1),
)


def published_scores(task: str | None, model: str | None, students: bool = False) -> list[PublishedScore]:
    """The published figures of a task and model preset, or of the student distilled from it."""
    known = [figure for figure in PUBLISHED_SCORES if PUBLISHED[figure.checkpoint] == (task, model)]
    return [figure for figure in known if (figure.checkpoint in STUDENTS) == students]


def summary(figures: list[PublishedScore]) -> list[str]:
    """One line per split and way of sampling: `bleu 26.4 (test; ODE 64 steps, CFG 2, w 1)`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for figure in figures:
        groups.setdefault((figure.split, figure.how), []).append(str(figure))
    return [f"{'  '.join(texts)}  ({split}; {how})" for (split, how), texts in groups.items()]
