"""Summarises runs from their folders: settings, curves, age."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elfcli.config.render import BY_HAND, as_recorded
from elfcli.config.resolve import resolve_run
from elfcli.config.schema import SECTIONS
from elfcli.errors import ElfError, InputError, near_file
from elfcli.runs.folder import CONFIG_FILE, METRICS_FILE, checkpoint_steps, is_run, read_metrics

NOT_COMPARED = {"output_dir", "wandb_run_name", "wandb_tag", "latent_mean", "latent_std"}


@dataclass(frozen=True)
class Overview:
    """One run. rows: of metrics.jsonl. settings: values by name; chosen: names of those set by hand. total: steps of
    the whole run, None if the log is too short to tell. changed: time of the last line, in seconds since the epoch."""

    folder: Path
    rows: list[dict]
    settings: dict[str, Any]
    chosen: list[str]
    total: int | None
    changed: float

    @property
    def step(self) -> int:
        """The last step that was logged or saved."""
        return max([row["step"] for row in self.rows] + checkpoint_steps(self.folder), default=0)

    def values(self, name: str) -> list[float]:
        """Return the logged values of a metric."""
        return [row[name] for row in self.rows if row.get(name) is not None]

    def last(self, name: str) -> float | None:
        """Return the last logged value of a metric."""
        values = self.values(name)
        return values[-1] if values else None


def runs_in(places: Sequence[Path]) -> list[Path]:
    """Return the given runs and those in the given folders. Raise InputError for a place without runs."""
    runs: list[Path] = []
    for place in places:
        if not place.is_dir():
            raise InputError(f"{place}: no such folder{near_file(place)}")
        inside = [place] if is_run(place) else sorted(path for path in place.glob("*/") if is_run(path))
        if not inside:
            raise InputError(f"{place}: no run of `elf train` in this folder or its subfolders")
        runs += [path for path in inside if path not in runs]
    return runs


def overview(folder: Path) -> Overview:
    """Return the summary of a run. Raise ElfError if one of its files is damaged."""
    file, log = folder / CONFIG_FILE, folder / METRICS_FILE
    recorded, rows = as_recorded(resolve_run(file), file), read_metrics(folder)
    settings = {name: value for section in SECTIONS for name, value in getattr(recorded.config, section)}
    origins = {name: origin for name, origin in recorded.origins.items() if name in settings.keys() - NOT_COMPARED}
    chosen = [name for name, origin in origins.items() if origin.file is None and origin.layer.startswith(BY_HAND)]
    changed = (log if log.is_file() else file).stat().st_mtime
    return Overview(folder, rows, settings, chosen, total_steps(settings, rows), changed)


def total_steps(settings: dict[str, Any], rows: list[dict]) -> int | None:
    """Return the steps of the whole run; those of an epoch are computed from the log."""
    if settings["steps"]:
        return settings["steps"]
    row = next((row for row in reversed(rows) if row.get("epoch")), None)
    return int(settings["epochs"] * row["step"] / row["epoch"] + 1e-6) if row else None


def differing(runs: Sequence[Overview]) -> list[str]:
    """Return the names of settings that differ between the runs; for a single run those that were set by hand."""
    if len(runs) == 1:
        return runs[0].chosen
    names = [name for name in runs[0].settings if name not in NOT_COMPARED]
    return [name for name in names if any(run.settings.get(name) != runs[0].settings[name] for run in runs)]


def age(seconds: float) -> str:
    """Return the time since a moment (seconds since the epoch) in its largest unit, for example `3 min`."""
    passed = max(time.time() - seconds, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size:.0f} {unit}"
    return f"{passed:.0f} s"


def overviews(folders: Sequence[Path]) -> tuple[list[Overview], list[str]]:
    """Return (the runs that can be read, a line for each run that cannot)."""
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(overview(folder))
        except (ElfError, OSError) as error:
            problems.append(f"{folder}: {' '.join(str(error).split())}")
    return runs, problems
