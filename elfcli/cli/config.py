"""`elf config show`, `elf config check` and `elf config copy`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elfcli.cli import options as o

if TYPE_CHECKING:
    from elfcli.config.resolve import Resolved

app = typer.Typer(cls=o.Grouped, no_args_is_help=True, rich_markup_mode=None, help="Show, check or copy settings.")
FORMATS = ("toml", "json")
DEVICES = "Devices of the run (default: those that JAX finds on this machine)."


@app.command()
@o.settings_options
def show(
    settings: o.SettingsOptions,
    run: Annotated[Path | None, o.run_argument("RUN", "A run folder: the settings it was trained with.")] = None,
    data: Annotated[str | None, o.option("--data", "DIR", "Show what `elf train --data DIR` would choose.")] = None,
    describe: Annotated[bool, o.option("--describe", "", "Explain each setting in a comment above it.")] = False,
    format_: Annotated[str, o.option("--format", "toml|json", "Output format; JSON has the values alone.")] = "toml",
) -> None:
    """Print every setting's value and the layer, file and line that set it.

    Later layers win: built-in defaults, task preset, model preset, --config files, ELF_... in the environment, --set.
    What the user set, and the learning rate that follows, comes first, as comments; then every setting.

    Example: elf config show --task de-en --set lr=1e-3
    """
    from elfcli import api
    from elfcli.config import render
    from elfcli.config.resolve import resolve
    from elfcli.errors import InputError, did_you_mean
    from elfcli.recipe.apply import preview

    if format_ not in FORMATS:
        raise InputError(f"--format {format_}: expected {' or '.join(FORMATS)}{did_you_mean(format_, FORMATS)}")
    if format_ == "json" and describe:
        raise InputError("--describe writes comments, which JSON does not have: use --format toml")
    if run is not None:
        if settings.task or settings.model or settings.config or settings.config_style or data:
            raise InputError(
                f"{run}: a run has all its settings: pass RUN alone, or --task, --model, --config and --data"
            )
        resolved = settings_of_run(run, settings.sets)
    else:
        layers = api.settings(settings.config, settings.config_style, settings.sets)
        resolved = resolve(task=settings.task, model=settings.model, flags={"data_path": data}, **layers)
    warn(resolved)
    if data is not None:
        resolved = preview(resolved)
    if format_ == "json":
        typer.echo(render.to_json(resolved), nl=False)
    else:
        typer.echo(render.by_hand(resolved) + render.to_toml(resolved, describe=describe), nl=False)


@app.command()
@o.settings_options
def check(
    settings: o.SettingsOptions,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Settings files (TOML or YAML).")],
    devices: Annotated[int | None, o.option("--devices", "N", DEVICES, min=1)] = None,
) -> None:
    """Report every problem of every file at once: unknown names, wrong types and ranges, contradictions.

    Example: elf config check my.toml --devices 8
    """
    from elfcli.config.check import check_devices
    from elfcli.config.resolve import ConfigError, Resolved, resolve, with_devices
    from elfcli.errors import InputError
    from elfcli.scoring import check_metric_names

    problems: list[str] = []
    good: list[tuple[Path, Resolved]] = []
    layers: dict[str, Any] = {
        "task": settings.task,
        "model": settings.model,
        "sets": settings.sets,
        "style": settings.config_style,
    }
    for path in files:
        try:
            good.append((path, resolve(files=[*settings.config, path], **layers)))
            metrics = good[-1][1]
            check_metric_names(metrics.config.evaluation.metrics, metrics.origins["metrics"].place())
        except ConfigError as error:
            problems += [line for line in error.problems if line not in problems]
        except InputError as error:
            problems.append(str(error))
    num_devices = devices or (count_devices() if good else 1)
    for path, resolved in good:
        warn(resolved)
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
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="Task preset, e.g. de-en.", autocompletion=o.complete_task)
    ],
    output: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="File to write.", callback=o.local_only("FILE.toml"))
    ],
    model: Annotated[
        str | None, o.option("--model", "MODEL", "Model preset, e.g. ELF-B.", autocompletion=o.complete_model)
    ] = None,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace an existing file.")] = False,
) -> None:
    """Write a task's recipe as a file to edit, each setting with its meaning; `elf train --config FILE` reads it.

    Example: elf config copy de-en my.toml
    """
    from elfcli.config.render import to_edit
    from elfcli.config.resolve import resolve
    from elfcli.errors import InputError
    from elfcli.outputs import write_output

    if output.suffix.lower() != ".toml":
        raise InputError(f"{output}: settings are written as TOML: use a name that ends in .toml")
    heading = f"The recipe of task {task}, to edit: elf train --config {output}"
    write_output(output, to_edit(resolve(task=task, model=model, environ={}), heading), overwrite, "FILE")
    typer.echo(f"{output}: edit it, then `elf train --config {output}`")


def settings_of_run(run: Path, sets: tuple[str, ...]) -> "Resolved":
    """Return the settings of a run folder, each with the layer that set it when the run started."""
    from elfcli.config import render
    from elfcli.config.resolve import resolve_run
    from elfcli.runs.folder import CONFIG_FILE, require_run

    require_run(run)
    path = run / CONFIG_FILE
    return render.as_recorded(resolve_run(path, sets), path)


def count_devices() -> int:
    """Return the number of devices of this machine; 1 if JAX cannot tell, for example while the TPU is in use."""
    import jax

    try:
        return jax.device_count()
    except RuntimeError:
        return 1


def warn(resolved: "Resolved") -> None:
    """Print notices and warnings on standard error."""
    for line in [*resolved.notices, *(f"warning: {line}" for line in resolved.warnings)]:
        typer.echo(line, err=True)
