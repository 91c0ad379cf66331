"""`elf export`: a trained model as a folder for others."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli.options import ConfigOption, ConfigStyleOption, SetOption, TaskOption

RawOption = Annotated[bool, typer.Option("--raw-weights", help="The weights themselves, not their EMA.")]
LicenseOption = Annotated[str, typer.Option("--license", metavar="ID", help="Licence named in the model card.")]
StepOption = Annotated[int | None, typer.Option("--at-step", metavar="N", help="Checkpoint; by default the newest.")]


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or any other checkpoint.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    raw_weights: RawOption = False,
    at_step: StepOption = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="elf|torch", help="Names of the weights: ours or the PyTorch port's.")
    ] = "elf",
    license_: LicenseOption = "mit",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder exported before.")] = False,
    task: TaskOption = None,
    config: ConfigOption = None,
    config_style: ConfigStyleOption = None,
    sets: SetOption = None,
) -> None:
    """Export weights, settings, tokenizer, sampling presets and a model card into a folder."""
    from elfcli.errors import InputError, did_you_mean
    from elfcli.ui.progress import say

    if format_ not in ("elf", "torch"):
        raise InputError(f"--format {format_}: expected elf or torch{did_you_mean(format_, ('elf', 'torch'))}")

    from elfcli.hub.export import ExportOptions, check_target
    from elfcli.hub.export import export as write
    from elfcli.hub.sources import config_of, open_source

    check_target(folder, overwrite)
    source = open_source(run, ema=not raw_weights, step=at_step)
    say(source.description)
    settings = config_of(source, task=task, files=config or (), sets=sets or (), style=config_style)
    options = ExportOptions(torch_names=format_ == "torch", license=license_, overwrite=overwrite)
    write(source, settings, folder, options)
    say(f"sample with `elf sample --checkpoint {folder}`, publish a run with `elf push-to-hub RUN ORG/NAME`")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        typer.echo(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
