"""`elf fit-grid`: a grid of sampling times for a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o
from elfcli.cli.evaluate import load

OUTPUT = "File to write; by default grid.toml in the run, which is then used by itself."


@o.several_processes
def fit_grid(
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help="As `elf sample --checkpoint` takes it.")
    ] = None,
    num_samples: Annotated[int, o.option("--num-samples -n", "N", "Texts that it is measured on.", min=1)] = 64,
    seed: o.SeedOption = 0,
    batch_size: o.BatchSizeOption = 64,
    at_step: o.StepOption = None,
    output: Annotated[Path | None, o.option("--output -o", "FILE.toml", OUTPUT)] = None,
    overwrite: o.OverwriteOption = False,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Measure where a model's steps matter, without training, for `--time-schedule fitted`."""
    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file, write_whole
    from elfcli.parallel.agree import by_first
    from elfcli.runs.folder import GRID_FILE
    from elfcli.ui.progress import say

    by_first(lambda: check_output_file(output, overwrite))
    settings = {"task": task, "model": model, "files": config or (), "sets": sets or (), "style": config_style}
    name, loaded = load(checkpoint, step=at_step, **settings)
    from elfcli.evaluation.fit_grid import fitted_grid
    from elfcli.sampling.generate import Options
    from elfcli.sampling.settings import settings_of

    own = loaded.source.config_file.parent / GRID_FILE if loaded.source.config_file is not None else None
    path = output or own
    if path is None:
        raise InputError(f"{name}: this checkpoint has no folder of its own settings: give --output FILE.toml")
    by_first(lambda: check_output_file(path, overwrite))
    times = fitted_grid(loaded, settings_of(loaded.config.sampling)[0], Options(seed, batch_size), num_samples)
    text = f"# times at even shares of the steps, fitted to step {loaded.step} by elf fit-grid\ntime_grid = {times}\n"
    by_first(lambda: write_whole(path, text))
    first, half, last = (times[len(times) * k // 4] for k in (1, 2, 3))
    say(f"{path}: a quarter of the steps before t {first:.2f}, half before {half:.2f}, three before {last:.2f}")
    extra = "" if path == own else f" --config {path}"
    typer.echo(f"elf sample --checkpoint {name} --time-schedule fitted{extra}")
