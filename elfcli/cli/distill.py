"""`elf distill`: students of a trained model that take few steps."""

from pathlib import Path
from typing import Annotated

from elfcli.cli import options as o

TEACHER = "Trained model: run, exported folder, checkpoint of the reference, or Hub name."
DATA = "Training data; by default the teacher's own."


@o.several_processes
def distill(
    teacher: Annotated[str, o.option("--teacher", "CHECKPOINT", TEACHER)],
    output: Annotated[Path, o.option("--output -o", "DIR", "Folder to make, with a run for each round.")],
    rounds: Annotated[str | None, o.option("--rounds", "16,8,4,2,1", "Network steps of each round's student.")] = None,
    steps: Annotated[int | None, o.option("--steps", "N", "Optimiser steps of a round.", min=1)] = None,
    data: Annotated[str | None, o.option("--data", "DIR", DATA)] = None,
    seed: Annotated[int | None, o.option("--seed", "S", "Seed of everything drawn.", **o.SEEDS)] = None,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Distil a trained model into students that take 16, 8, 4, 2, 1 steps, in rounds; continue with `elf resume`."""
    from elfcli.errors import InputError
    from elfcli.parallel.agree import broadcast_from_first, first_process_first
    from elfcli.runs.rounds import check_new_rounds
    from elfcli.ui.progress import say
    from elfcli.weights.open import open_source
    from elfcli.weights.settings import resolved_of

    broadcast_from_first(lambda: check_new_rounds(output))
    words = [] if rounds is None else [word.strip() for word in rounds.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--rounds {rounds}: expected numbers of network steps with commas between, such as 8,4")
    flags = {"rounds": [int(word) for word in words] or None, "round_steps": steps, "data_path": data, "seed": seed}
    with first_process_first():
        source = open_source(teacher)
        say(source.description)
        settings = {"files": config or (), "sets": sets or (), "flags": flags, "style": config_style}
        resolved = resolved_of(source, task=task, model=model, **settings)

    from elfcli.training.distill import start_rounds

    start_rounds(source, resolved, output)
    say(f"done: {output} (sample with `elf sample --checkpoint {output}`, an earlier student with {output}@round-N)")
