"""`elf train`: a new run."""

from pathlib import Path
from typing import Annotated

from elfcli.cli import options as o


@o.several_processes
def train(
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    data: Annotated[
        str | None, o.option("--data", "DIR", "Training data of `elf tokenize`, or a Hub data set.")
    ] = None,
    output: Annotated[Path | None, o.option("--output -o", "RUN", "Run folder to make.")] = None,
    steps: Annotated[int | None, o.option("--steps", "N", "Optimiser steps in all.")] = None,
    minutes: Annotated[
        float | None, o.option("--minutes", "M", "Length from the command's start to the last checkpoint.")
    ] = None,
    epochs: Annotated[float | None, o.option("--epochs", "N", "Passes over the data.")] = None,
    batch_size: Annotated[int | None, o.option("--batch-size", "N", "Examples per batch.")] = None,
    lr: Annotated[float | None, o.option("--lr", "RATE", "Peak learning rate.")] = None,
    init_from: Annotated[
        str | None, o.option("--init-from", "SOURCE", "Weights to start from: run, file, Hub name.")
    ] = None,
    overfit: Annotated[
        int | None, o.option("--overfit", "N", "Learn the first N examples by heart, to see what cannot be learnt.")
    ] = None,
    seed: Annotated[int | None, o.option("--seed", "S", "Seed of everything drawn.")] = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> Path:
    """Train a new run; it can be continued with `elf resume`."""
    import time

    from elfcli.config.resolve import resolve
    from elfcli.errors import InputError
    from elfcli.parallel.agree import first_process_first
    from elfcli.ui.progress import say

    began = time.monotonic()
    if minutes is not None and (steps is not None or epochs is not None):
        raise InputError("--minutes, --steps and --epochs each say how long a run is: give one of them")
    flags = {"data_path": data, "output_dir": str(output) if output else None, "steps": steps, "epochs": epochs,
             "minutes": minutes, "overfit_examples": overfit, "batch_size": batch_size, "lr": lr, "seed": seed,
             "init_from": init_from}  # fmt: skip
    from elfcli.recipe.defaults import DEFAULT_TASK, needs_task, with_data, with_output, with_overfit_length

    resolved = resolve(task=task, model=model, files=config or (), sets=sets or (), flags=flags, style=config_style)
    if needs_task(resolved, bool(config)):
        say(f"no --task and no --data: training the {DEFAULT_TASK} recipe")
        resolved = resolve(task=DEFAULT_TASK, model=model, sets=sets or (), flags=flags)
    resolved = with_overfit_length(resolved)
    for line in [*resolved.notices, *(f"warning: {warning}" for warning in resolved.warnings)]:
        say(line)

    from elfcli.training.start import start_run

    with first_process_first():
        resolved, folder = with_output(resolved)
        resolved = with_data(resolved)
    start_run(resolved, folder, began=began)
    if resolved.config.training.overfit_examples is not None:
        from elfcli.diagnosis.overfit import tell_overfit

        tell_overfit(folder)
    say(f"done: {folder} (sample with `elf sample --checkpoint {folder}`)")
    return folder
