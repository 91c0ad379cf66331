"""The scores. To add one, write a file with its METRIC and add its line to MODULES; everything else finds it here."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from elfcli.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from elfcli.scoring.score import Metric

MODULES = {
    "bleu": "elfcli.scoring.bleu",
    "rouge": "elfcli.scoring.rouge",
    "ppl": "elfcli.scoring.perplexity",
    "mauve": "elfcli.scoring.mauve",
    "gaps": "elfcli.scoring.gaps",
}  # By the name in files and options. A module is imported when its score is first needed


def metric(name: str) -> "Metric":
    """Return the metric of this name; KeyError if there is none."""
    return import_module(MODULES[name]).METRIC


def columns(name: str) -> dict[str, str]:
    """Return the figures of a metric and their headings in tables; of an unknown metric its value alone."""
    return dict(metric(name).columns) if name in MODULES else {name: name}


def check_metric_names(names: Sequence[str], where: str) -> None:
    """Raise InputError if there is no metric of one of these names. where: what named them."""
    for name in names:
        if name not in MODULES:
            expected = f"expected some of {', '.join(MODULES)}{did_you_mean(name, MODULES)}"
            raise InputError(f"{where}: '{name}' is not a metric: {expected}")
