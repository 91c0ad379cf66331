"""`elf train`: a new run."""

from pathlib import Path
from typing import Annotated

from elfcli.cli import options as o

DATA = "Training data of `elf tokenize`, or a Hub data set."
MINUTES = "Length in minutes, from the start of the command to the last checkpoint."

GAPS = "Train on free texts with gaps: the model also continues and fills."


@o.several_processes
@o.settings_options
def train(
    settings: o.SettingsOptions,
    data: Annotated[str | None, o.option("--data", "DIR", DATA)] = None,
    output: Annotated[Path | None, o.option("--output -o", "RUN", "Run folder to create.")] = None,
    steps: Annotated[int | None, o.option("--steps", "N", "Length in optimizer steps.")] = None,
    minutes: Annotated[float | None, o.option("--minutes", "M", MINUTES)] = None,
    epochs: Annotated[float | None, o.option("--epochs", "N", "Length in passes over the data.")] = None,
    batch_size: Annotated[int | None, o.option("--batch-size", "N", "Examples per batch.")] = None,
    lr: Annotated[float | None, o.option("--lr", "RATE", "Peak learning rate.")] = None,
    init_from: Annotated[
        str | None, o.option("--init-from", "CHECKPOINT", "Weights to start from: run, file or Hub name.")
    ] = None,
    overfit: Annotated[
        int | None, o.option("--overfit", "N", "Overfit the first N examples as a sanity check.")
    ] = None,
    gaps: Annotated[bool, o.option("--gaps", "", GAPS)] = False,
    seed: Annotated[int | None, o.option("--seed", "S", "Seed of everything drawn.")] = None,
) -> None:
    """Train a new run; `elf resume` continues it.

    Example: elf train --data data/my --minutes 30 --output runs/my
    """
    from elfcli import api
    from elfcli.ui.progress import say

    folder = api.train(
        data=data, output=output, steps=steps, minutes=minutes, epochs=epochs, batch_size=batch_size, lr=lr,
        init_from=init_from, overfit=overfit, gaps=gaps, seed=seed, **vars(settings),
    )  # fmt: skip
    say(f"done: {folder} (sample with `elf sample {folder}`)")
