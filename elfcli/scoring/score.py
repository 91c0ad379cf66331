"""What a score is, and which texts are compared with which."""

from collections.abc import Sequence
from typing import ClassVar

from elfcli.errors import InputError
from elfcli.scoring.bootstrap import Draws, interval


class Score:
    """Base of a metric's result, a dataclass. metric: its name in files. value: the field by which texts are ranked.

    resampled: the value of each bootstrap draw.
    """

    names: ClassVar[tuple[str, str]]
    resampled: Draws

    def __init_subclass__(cls, metric: str, value: str):
        cls.names = metric, value

    def as_dict(self) -> dict:
        """The score as `scoring/report.py` completes it."""
        metric, value = self.names
        others = {name: figure for name, figure in vars(self).items() if name not in (metric, "resampled")}
        return {"metric": metric, "value": getattr(self, value), "interval": interval(self.resampled)} | others


def check_paired(generated: Sequence[str], references: Sequence[str]) -> None:
    if len(generated) != len(references):
        raise InputError(f"{len(generated)} generated texts, but {len(references)} references: there must be as many")
    if not generated:
        raise InputError("no generated texts: nothing to score")
