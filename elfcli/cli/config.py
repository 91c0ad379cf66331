"""`elf config show`, `elf config check` and `elf config copy`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o

app = typer.Typer(cls=o.Grouped, no_args_is_help=True, rich_markup_mode=None, help="Show, check or copy settings.")


class Format(StrEnum):
    toml = "toml"
    yaml = "yaml"
    json = "json"


@app.command()
def show(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A run folder: what it was trained with.", autocompletion=o.runs),
    ] = None,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    set_: o.SetOption = None,
    data: Annotated[str | None, o.option("--data", "DIR", "Show what `elf train --data DIR` would choose.")] = None,
    describe: Annotated[bool, o.option("--describe", "", "Say above each setting what it means.")] = False,
    format_: Annotated[Format, o.option("--format", "", "Output format.")] = Format.toml,
) -> None:
    """Print every setting's value and the layer, file and line that set it.

    Later layers win: built-in defaults, task preset, model preset, --config files, ELF_... in the environment, --set.
    What was set by hand, and the learning rate that follows, stand first, as comments; then every setting.
    """
    from elfcli.config import render
    from elfcli.config.resolve import resolve
    from elfcli.errors import InputError

    if run is not None:
        if task or model or config or config_style or data:
            raise InputError(f"{run}: a run has all its settings: give RUN, or --task, --model, --config and --data")
        resolved = _of_run(run, set_ or ())
    else:
        flags = {"data_path": data}
        resolved = resolve(task=task, model=model, files=config or (), sets=set_ or (), style=config_style, flags=flags)
    _warn(resolved)
    if data is not None:
        from elfcli.recipe.apply import preview_settings
        from elfcli.recipe.vectors import vectors_folder

        resolved = preview_settings(resolved, vectors_folder)  # which training will make
    if format_ is Format.json:
        if describe:
            raise InputError("--describe writes comments, which JSON does not have: use --format toml or yaml")
        typer.echo(render.to_json(resolved), nl=False)
        return
    write = {Format.toml: render.to_toml, Format.yaml: render.to_yaml}[format_]
    typer.echo(render.by_hand(resolved) + write(resolved, describe=describe), nl=False)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Settings files (TOML or YAML).")],
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config_style: o.ConfigStyleOption = None,
    set_: o.SetOption = None,
    devices: Annotated[
        int | None, o.option("--devices", "", "Devices of the run; by default those that JAX sees here.", min=1)
    ] = None,
) -> None:
    """Report every problem of every file at once: unknown names, wrong types and ranges, contradictions."""
    from elfcli.config.check import check_devices
    from elfcli.config.resolve import ConfigError, Resolved, resolve, with_devices

    problems: list[str] = []
    good: list[tuple[Path, Resolved]] = []
    for path in files:
        try:
            good.append((path, resolve(task=task, model=model, files=[path], sets=set_ or (), style=config_style)))
        except ConfigError as error:
            problems += [line for line in error.problems if line not in problems]
    num_devices = devices or (_num_devices() if good else 1)
    for path, resolved in good:
        _warn(resolved)
        try:
            config = with_devices(resolved, num_devices).config
            found = [f"{path}: {line}" for line in check_devices(config, num_devices)]
        except ConfigError as error:
            found = list(error.problems)
        problems += found
        if not found:
            typer.echo(f"{path}: ok")
    if problems:
        raise ConfigError(problems)


@app.command()
def copy(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Task preset, e.g. de-en.", autocompletion=o.tasks)],
    output: Annotated[Path, typer.Argument(metavar="FILE.toml", help="File to write.")],
    model: o.ModelOption = None,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace the file that is there.")] = False,
) -> None:
    """Write a task's recipe as a file to edit, each setting with what it means; `elf train --config FILE` takes it."""
    from elfcli.config.render import to_edit
    from elfcli.config.resolve import resolve
    from elfcli.errors import InputError
    from elfcli.outputs import write_output

    if output.suffix.lower() != ".toml":
        raise InputError(f"{output}: settings are written as TOML: give FILE.toml")
    text = to_edit(resolve(task=task, model=model, environ={}), f"The recipe of task {task}, to be edited: "
                   f"elf train --config {output}")  # fmt: skip
    write_output(output, text, overwrite, "FILE")
    typer.echo(f"{output}: edit it, then `elf train --config {output}`")


def _of_run(run: Path, sets: Sequence[str]):
    """The settings of a run folder, each with the layer that set it when the run started."""
    from elfcli.config import render
    from elfcli.config.resolve import resolve_run
    from elfcli.runs.folder import CONFIG_FILE, require_run

    require_run(run)
    path = run / CONFIG_FILE
    return render.as_recorded(resolve_run(path, sets), path)


def _num_devices() -> int:
    """Devices of this machine; 1 where JAX cannot say, for example while another process holds the TPU."""
    import jax

    try:
        return jax.device_count()
    except RuntimeError:
        return 1


def _warn(resolved) -> None:
    for line in [*resolved.notices, *(f"warning: {line}" for line in resolved.warnings)]:
        typer.echo(line, err=True)
