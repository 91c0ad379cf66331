"""`elf export`: a trained model as a folder for others."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o

NAMES = "Names of the weights: ours or the PyTorch port's."


@o.settings_options
def export(
    settings: o.SettingsOptions,
    run: Annotated[str, o.run_argument("CHECKPOINT", "Run folder, or any other checkpoint.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to create.", callback=o.local_only("DIR"))],
    raw_weights: o.RawOption = False,
    at_step: o.StepOption = None,
    format_: Annotated[
        str, o.option("--format", "elf|torch", "Names of the weights: ours or the PyTorch port's.")
    ] = "elf",
    license_: o.LicenseOption = "mit",
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace a folder exported before.")] = False,
) -> None:
    """Export weights, settings, tokenizer, sampling presets and a model card into a folder.

    Example: elf export runs/my exports/my
    """
    from elfcli import api
    from elfcli.errors import InputError, did_you_mean
    from elfcli.ui.progress import say

    if format_ not in ("elf", "torch"):
        raise InputError(f"--format {format_}: expected elf or torch{did_you_mean(format_, ('elf', 'torch'))}")

    from elfcli.publishing.export import ExportOptions, check_export_folder
    from elfcli.publishing.export import export as write
    from elfcli.weights.open import open_source
    from elfcli.weights.settings import config_of

    check_export_folder(folder, overwrite)
    source = open_source(run, ema=not raw_weights, step=at_step)
    say(source.description)
    layers = api.settings(list(settings.config), settings.config_style, settings.sets)
    config = config_of(source, task=settings.task, model=settings.model, **layers)
    write(source, config, folder, ExportOptions(torch_names=format_ == "torch", license=license_, overwrite=overwrite))
    if config.network.text_position is not None:
        say("the reference's code has no text_position and would sample this model wrongly: sample it with elf")
    say(f"sample with `elf sample {folder}`, publish a run with `elf push-to-hub RUN ORG/NAME`")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        typer.echo(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
