"""What runs have come to, read from their folders alone: settings, curves, age."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elfcli.config.resolve import resolve_run
from elfcli.config.schema import SECTIONS
from elfcli.errors import ElfError, InputError, near_file
from elfcli.runs.folder import CONFIG_FILE, METRICS_FILE, checkpoint_steps, is_run, read_metrics

NOT_COMPARED = {"output_dir", "wandb_run_name", "wandb_tag", "latent_mean", "latent_std"}
USER_LAYERS = ("command line", "--set", "environment", "config file")
"""Origins of settings that somebody chose for this run."""


@dataclass(frozen=True)
class Overview:
    """rows: of metrics.jsonl. settings: values by name; chosen: names of those set by hand. total: steps in all, None
    where the log is too short to say. changed: seconds since the epoch of the last line."""

    folder: Path
    rows: list[dict]
    settings: dict[str, Any]
    chosen: list[str]
    total: int | None
    changed: float

    @property
    def step(self) -> int:
        return max([row["step"] for row in self.rows] + checkpoint_steps(self.folder), default=0)

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if row.get(name) is not None]

    def last(self, name: str) -> float | None:
        found = self.values(name)
        return found[-1] if found else None


def runs_in(places: Sequence[Path]) -> list[Path]:
    """The runs given, and those in the folders given; InputError where a place holds none."""
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            raise InputError(f"{place}: no such folder{near_file(place)}")
        inside = [place] if is_run(place) else sorted(path for path in place.glob("*/") if is_run(path))
        if not inside:
            raise InputError(f"{place}: no run of `elf train` there or in the folders in it")
        found += [path for path in inside if path not in found]
    return found


def overview(folder: Path) -> Overview:
    """ElfError where a file of the run is damaged."""
    config, rows = resolve_run(folder / CONFIG_FILE).config, read_metrics(folder)
    settings = {name: value for section in SECTIONS for name, value in getattr(config, section)}
    log = folder / METRICS_FILE
    changed = (log if log.is_file() else folder / CONFIG_FILE).stat().st_mtime
    return Overview(folder, rows, settings, chosen_by_hand(folder), total_steps(settings, rows), changed)


def total_steps(settings: dict[str, Any], rows: list[dict]) -> int | None:
    """Steps of the whole run; those of an epoch are known from the log."""
    if settings["steps"]:
        return settings["steps"]
    row = next((row for row in reversed(rows) if row.get("epoch")), None)
    return int(settings["epochs"] * row["step"] / row["epoch"] + 1e-6) if row else None


def chosen_by_hand(folder: Path) -> list[str]:
    """Names of settings whose origin, the comment behind them in config.toml, is somebody's choice."""
    lines = (folder / CONFIG_FILE).read_text(encoding="utf-8").splitlines()
    found = [re.match(r"(\w+) = .*  # (.*)$", line) for line in lines]
    return [one[1] for one in found if one and one[2].startswith(USER_LAYERS) and one[1] not in NOT_COMPARED]


def differing(runs: Sequence[Overview]) -> list[str]:
    """Names of settings that are not the same in all runs; of a single run those that were set by hand."""
    if len(runs) == 1:
        return runs[0].chosen
    names = [name for name in runs[0].settings if name not in NOT_COMPARED]
    return [name for name in names if any(run.settings.get(name) != runs[0].settings[name] for run in runs)]


def age(seconds: float) -> str:
    """`3 min`: time since a moment (seconds since the epoch), in its largest unit."""
    passed = max(time.time() - seconds, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size:.0f} {unit}"
    return f"{passed:.0f} s"


def overviews(folders: Sequence[Path]) -> tuple[list[Overview], list[str]]:
    """(what can be read, a line for each run that cannot)."""
    found, problems = [], []
    for folder in folders:
        try:
            found.append(overview(folder))
        except (ElfError, OSError) as error:
            problems.append(f"{folder}: {' '.join(str(error).split())}")
    return found, problems
