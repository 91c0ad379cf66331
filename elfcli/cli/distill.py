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
    from elfcli.hub.sources import open_source, resolved_of
    from elfcli.parallel.agree import by_first, first_goes_ahead
    from elfcli.runs.rounds import check_new_rounds
    from elfcli.ui.progress import say

    by_first(lambda: check_new_rounds(output))
    given = {"rounds": f"[{rounds}]" if rounds else None, "round_steps": steps, "data_path": data, "seed": seed}
    flags = [f"{name}={value}" for name, value in given.items() if value is not None]
    with first_goes_ahead():
        source = open_source(teacher)
        say(source.description)
        settings = {"model": model, "files": config or (), "sets": [*(sets or ()), *flags], "style": config_style}
        resolved = resolved_of(source, task=task, **settings)

    from elfcli.training.defaults import with_data
    from elfcli.training.distill import first_round, train_rounds
    from elfcli.training.inputs import open_examples

    with first_goes_ahead():
        resolved = with_data(resolved)
        examples = open_examples(resolved.config)
    start = first_round(resolved, source, output, len(examples))
    train_rounds(output, [(student_steps, False) for student_steps in start[0].rounds], start)
    say(f"done: {output} (sample with `elf sample --checkpoint {output}`, an earlier student with {output}@round-N)")
