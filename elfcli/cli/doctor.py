"""`elf doctor`: what is wrong with a model, and which setting to change."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elfcli.cli import options as o

if TYPE_CHECKING:
    from elfcli.diagnosis.checks import Check


@o.several_processes
@o.settings_options
@o.checkpoint_options
def doctor(
    checkpoint: str | None,
    settings: o.SettingsOptions,
    data: o.DataOption = None,
    num_samples: Annotated[int, o.option("--num-samples -n", "N", "Number of texts used by each check.", min=1)] = 64,
    seed: o.SeedOption = 0,
    at_step: o.StepOption = None,
    raw_weights: o.RawOption = False,
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Check a model: data, latents, training, sampling; report what is wrong and which setting to change. Without a
    model, check the installation.

    Example: elf doctor runs/my
    """
    from elfcli import api
    from elfcli.cli.output import check_json

    check_json(json_file, overwrite)
    if checkpoint is None and settings.task is None and settings.model is None:
        from elfcli.diagnosis.installation import first_to_fix, installation

        rows = installation()
        report(rows, first_to_fix(rows), json_file, overwrite)
        return
    loaded = api.load(checkpoint, at_step=at_step, raw_weights=raw_weights, **vars(settings)).loaded
    from elfcli.diagnosis.checks import first_advice, named
    from elfcli.diagnosis.history import history_of
    from elfcli.diagnosis.measure import diagnose, open_data
    from elfcli.parallel.agree import run_on_all
    from elfcli.sampling.generate import Options

    found = run_on_all(lambda: open_data(loaded, data))
    history = history_of(loaded, len(found.train))
    rows = named(diagnose(loaded, found, history, Options(seed), num_samples), loaded.name)
    report(rows, first_advice(rows), json_file, overwrite)


def report(rows: Sequence["Check"], advice: str, json_file: Path | None, overwrite: bool) -> None:
    """Print the table of checks and what to do first; write them as JSON."""
    from elfcli.outputs import write_result
    from elfcli.ui.progress import is_first_process
    from elfcli.ui.table import aligned

    if not is_first_process():
        return
    cells = [("", "check", "value", "expected")]
    cells += [(check.verdict, check.check, display_value(check.value), check.expected) for check in rows]
    typer.echo("\n".join(aligned(cells)))
    typer.echo(f"\nfirst: {advice}")
    write_result(json_file, {"checks": [asdict(check) for check in rows], "first": advice}, overwrite)


def display_value(value: float | str | None) -> str:
    """Return a value for the table."""
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4g}"
