"""`elf runs`: what runs there are, and how far they have come."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o

PLACES = "Runs, or folders of runs; by default the working folder and its runs/."


def runs(
    places: Annotated[list[Path] | None, typer.Argument(metavar="RUN...", help=PLACES, autocompletion=o.runs)] = None,
    as_json: Annotated[bool, o.option("--json", "", "The same as JSON.")] = False,
) -> None:
    """List runs: steps, losses, speed, age of the last line, the loss as a curve, and which settings differ."""
    import json

    from elfcli.runs.overview import differing, overviews, runs_in
    from elfcli.ui.progress import say
    from elfcli.ui.table import aligned

    found, problems = overviews(runs_in(list(places or default_places())))
    for line in problems:
        say(f"warning: {line}")
    found.sort(key=lambda run: -run.changed)
    names = differing(found) if found else []
    if as_json:
        typer.echo(json.dumps([facts(run, names) for run in found], indent=1))
        return
    heads = ("run", "step", "loss", "denoise", "decode", "held-out", "tokens/s", "age", "curve")
    rows = [heads, *(cells(run) for run in found)]
    typer.echo("\n".join(aligned(rows, numbers=range(1, 8))))
    if names:
        what = "settings that differ" if len(found) > 1 else "set by hand"
        table = [(what, *(str(run.folder) for run in found)), *((name, *values(found, name)) for name in names)]
        typer.echo("\n" + "\n".join(aligned(table)))


def default_places() -> list[Path]:
    """Where runs are looked for; InputError where there are none."""
    from elfcli.errors import InputError
    from elfcli.runs.folder import is_run

    places = [Path("runs"), *([Path(".")] if is_run(Path(".")) or any(map(is_run, Path(".").glob("*/"))) else [])]
    places = [place for place in places if place.is_dir()]
    if not places:
        raise InputError("no runs/ here, and no run in this folder: name a run, or train one with `elf train`")
    return places


def cells(run) -> list[str]:
    from elfcli.runs.overview import age
    from elfcli.ui.live import spark
    from elfcli.ui.progress import format_number

    losses = [format_number(run.last(name)) for name in ("loss", "denoise_loss", "decode_loss", "val_denoise_loss")]
    steps, speed = f"{run.step:,} of {run.total:,}" if run.total else f"{run.step:,}", run.last("tokens_per_second")
    rate = f"{speed:,.0f}" if speed else "-"
    return [str(run.folder), steps, *losses, rate, age(run.changed), spark(run.values("loss"), 12)]


def values(found, name: str) -> list[str]:
    return ["-" if run.settings[name] is None else str(as_json(run.settings[name])) for run in found]


def facts(run, names: list[str]) -> dict:
    figures = ("loss", "denoise_loss", "decode_loss", "val_denoise_loss", "val_decode_loss", "tokens_per_second")
    return {"run": str(run.folder), "step": run.step, "steps": run.total, "changed": run.changed} | {
        **{name: run.last(name) for name in figures},
        "settings": {name: as_json(run.settings[name]) for name in names},
    }


def as_json(value):
    """A setting's value as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
