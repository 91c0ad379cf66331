"""`elf encoder`: a contextual encoder of one's own data."""

import time
from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o

MINUTES = "Time from start to the written folder, compilation included; 10 where no --steps are given."


def encoder(
    data: Annotated[str | None, o.option("--data", "DIR", "Data folder of `elf tokenize`.")] = None,
    minutes: Annotated[float | None, o.option("--minutes", "M", MINUTES, min=0.01, max=100_000)] = None,
    steps: Annotated[int | None, o.option("--steps", "N", "Steps to train instead.", min=1, max=2**31 - 1)] = None,
    output: Annotated[Path | None, o.option("--output -o", "ENC", "Folder to write; by default DIR/encoder.")] = None,
    seed: o.SeedOption = 0,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace an encoder that is there.")] = False,
) -> None:
    """Train a small T5 encoder on a data folder by masked tokens, without downloads."""
    started = time.monotonic()
    from elfcli.errors import InputError
    from elfcli.parallel.join import join

    if data is None:
        raise InputError("no data: give --data DIR, a folder of `elf tokenize`")
    if minutes is None and steps is None:
        minutes = 10.0
    join()  # several processes are refused by train_encoder, with one line for all
    from elfcli.training.encoder import train_encoder

    deadline = None if minutes is None else started + 60 * minutes
    folder = train_encoder(data, output, steps=steps, deadline=deadline, seed=seed, overwrite=overwrite)
    typer.echo(f"{folder} (train on it with `elf train --data {data} --set encoder_model_name={folder}`)")
