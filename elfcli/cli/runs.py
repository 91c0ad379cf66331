"""`elf runs`: list runs and their progress."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elfcli.cli import options as o
from elfcli.cli.output import FORMAT, wants_json

if TYPE_CHECKING:
    from elfcli.runs.overview import Overview

PLACES = "Runs, or folders of runs (default: the working folder and its runs/)."
LOSSES = ("loss", "denoise_loss", "decode_loss", "val_denoise_loss")


def runs(
    places: Annotated[list[Path] | None, o.run_argument("RUN...", PLACES)] = None,
    format_: Annotated[str, o.option("--format", "table|json", FORMAT)] = "table",
    json_flag: Annotated[bool, o.option("--json", "", "", hidden=True)] = False,
) -> None:
    """List runs: steps, losses, speed, age of the last line, the loss as a curve, and which settings differ.

    Example: elf runs --format json
    """
    from elfcli.runs.overview import differing, overviews, runs_in
    from elfcli.ui.progress import say
    from elfcli.ui.table import aligned

    as_json = wants_json(format_, json_flag)
    found, problems = overviews(runs_in(list(places or default_places())))
    for line in problems:
        say(f"warning: {line}")
    found.sort(key=lambda run: -run.changed)
    names = differing(found) if found else []
    if as_json:
        typer.echo(json.dumps([facts(run, names) for run in found], indent=1))
        return
    heads = ("run", "step", "loss", "denoise", "decode", "held-out", "tokens/s", "age", "curve")
    typer.echo("\n".join(aligned([heads, *(cells(run) for run in found)], numbers=range(1, 8))))
    if names:
        title = "settings that differ" if len(found) > 1 else "set by the user"
        table = [(title, *(str(run.folder) for run in found)), *((name, *values(found, name)) for name in names)]
        typer.echo("\n" + "\n".join(aligned(table)))


def default_places() -> list[Path]:
    """Return the folders that are searched for runs. Raises InputError if there are none."""
    from elfcli.errors import InputError
    from elfcli.runs.folder import is_run

    here = Path(".")
    places = [Path("runs"), *([here] if is_run(here) or any(map(is_run, here.glob("*/"))) else [])]
    places = [place for place in places if place.is_dir()]
    if not places:
        raise InputError("no runs/ and no run in this folder: name a run, or train one with `elf train`")
    return places


def cells(run: "Overview") -> list[str]:
    """Return a run's row of the table."""
    from elfcli.runs.overview import age
    from elfcli.ui.live import spark
    from elfcli.ui.progress import format_number

    steps = f"{run.step:,} of {run.total:,}" if run.total else f"{run.step:,}"
    speed = run.last("tokens_per_second")
    return [str(run.folder), steps, *(format_number(run.last(name)) for name in LOSSES),
            f"{speed:,.0f}" if speed else "-", age(run.changed), spark(run.values("loss"), 12)]  # fmt: skip


def values(found: Sequence["Overview"], name: str) -> list[str]:
    """Return a setting's value in every run."""
    return ["-" if run.settings[name] is None else str(plain_value(run.settings[name])) for run in found]


def facts(run: "Overview", names: Sequence[str]) -> dict[str, Any]:
    """Return a run as JSON. names: settings to include."""
    figures = (*LOSSES, "val_decode_loss", "tokens_per_second")
    return {"run": str(run.folder), "step": run.step, "steps": run.total, "changed": run.changed} | {
        **{name: run.last(name) for name in figures},
        "settings": {name: plain_value(run.settings[name]) for name in names},
    }


def plain_value(value: Any) -> Any:
    """Return a setting's value as JSON has it."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
