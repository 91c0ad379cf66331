"""What a score is, what it is computed from, and how a metric describes itself to tables, plots, cards and sweeps."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from elfcli.errors import InputError
from elfcli.scoring.bootstrap import Draws, interval
from elfcli.scoring.protocol import PAPER
from elfcli.scoring.samples_file import UNKNOWN, Reference, SampleProvenance


@dataclass(frozen=True)
class Texts:
    """What is scored. references: one or several per text. real: held-out texts to compare with. seen: training texts,
    if known. rows: the samples with all that is known of them, such as their templates."""

    generated: Sequence[str]
    references: Sequence[Reference] | None = None
    real: Sequence[str] | None = None
    origin: SampleProvenance = UNKNOWN
    seen: Collection[str] | None = None
    rows: Sequence[dict] = ()


@dataclass(frozen=True)
class ScoreOptions:
    """How texts are scored. judge: a scoring.judge.Judge, if the metric uses one. update(done): texts scored so far.
    tokenizer: sacrebleu's, for BLEU, by default that of the protocol."""

    protocol: str = PAPER
    tokenizer: str | None = None
    judge: Any = None
    update: Callable[[int], None] = lambda done: None


@dataclass(frozen=True, kw_only=True)
class Score:
    """Base of a metric's result. metric: its name in files. value: the field that ranks texts. resampled: per draw."""

    names: ClassVar[tuple[str, str]]
    resampled: Draws = field(default=(), repr=False, compare=False)

    def __init_subclass__(cls, metric: str, value: str):
        cls.names = metric, value

    def as_dict(self) -> dict:
        """Return the score as `scoring/report.py` completes it."""
        metric, value = self.names
        others = {name: figure for name, figure in vars(self).items() if name not in (metric, "resampled")}
        return {"metric": metric, "value": getattr(self, value), "interval": interval(self.resampled)} | others


@dataclass(frozen=True)
class Metric:
    """A metric. columns: its figures and their headings. label, description: in model cards and `evaluate`. needs: what
    it compares texts with. uses_judge: a network computes it, on all processes together; otherwise process 0 alone
    does. check(num_texts, num_real, judge): raises InputError, before texts are sampled, if it could not be
    computed."""

    name: str
    label: str
    description: str
    columns: Mapping[str, str]
    compute: Callable[[Texts, ScoreOptions], Score]
    needs: Literal["nothing", "references", "real", "gaps"] = "nothing"
    larger_is_better: bool = True
    protocols: tuple[str, ...] = (PAPER,)
    uses_judge: bool = False
    check: Callable[[int, int, Any], None] = lambda num_texts, num_real, judge: None


def check_paired(generated: Sequence[str], references: Sequence[Reference]) -> None:
    """Raise InputError unless there are texts, and references for each."""
    if len(generated) != len(references):
        raise InputError(f"{len(generated)} generated texts, but {len(references)} references: they must match")
    if not generated:
        raise InputError("no generated texts: nothing to score")
