"""`elf doctor`: what is wrong with a model, and which setting to change."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o
from elfcli.cli.evaluate import load
from elfcli.cli.output import check_outputs
from elfcli.diagnosis.history import history_of

CHECKPOINT = "As `elf sample --checkpoint` takes it; without one the installation is checked."


@o.several_processes
def doctor(
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT, autocompletion=o.checkpoints)
    ] = None,
    data: Annotated[str | None, o.option("--data", "DIR", "Data to try it on; by default the run's own.")] = None,
    num_samples: Annotated[int, o.option("--num-samples -n", "N", "Texts, of each check.", min=1)] = 64,
    seed: o.SeedOption = 0,
    at_step: o.StepOption = None,
    raw_weights: o.RawOption = False,
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Say what is wrong with a model and which setting to change: data, latents, training, sampling; or, without a
    model, what is wrong with the installation."""
    check_outputs(json_file, None, overwrite)
    if checkpoint is None and task is None and model is None:
        from elfcli.diagnosis.installation import first_to_mend, installation

        rows = installation()
        report(rows, first_to_mend(rows), json_file, overwrite)
        return
    settings = {"task": task, "model": model, "files": config or (), "sets": sets or (), "style": config_style}
    name, loaded = load(checkpoint, ema=not raw_weights, step=at_step, **settings)
    from elfcli.diagnosis.checks import first_advice, named
    from elfcli.diagnosis.measure import diagnose, open_data
    from elfcli.parallel.agree import run_on_all
    from elfcli.sampling.generate import Options

    found = run_on_all(lambda: open_data(loaded, data))
    rows = named(diagnose(loaded, found, history_of(loaded, len(found.train)), Options(seed), num_samples), name)
    report(rows, first_advice(rows), json_file, overwrite)


def report(rows: list, advice: str, json_file: Path | None, overwrite: bool) -> None:
    """The table of checks, and what to do first."""
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
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4g}"
