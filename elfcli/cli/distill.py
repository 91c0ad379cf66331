"""`elf distill`: students of a trained model that take few steps."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o

OBJECTIVE = ("progressive: rounds that take ever fewer steps; mmd: a generator of free text whose passes refine their "
             "text, in the stages mmd and ird (default: progressive).")  # fmt: skip
TEACHER = "Trained model: run, exported folder, checkpoint of the reference, or Hub name."


@o.several_processes
@o.settings_options
def distill(
    settings: o.SettingsOptions,
    output: Annotated[Path, o.option("--output -o", "DIR", "Folder to create, with a run for each round.")],
    teacher: Annotated[
        str | None, typer.Argument(metavar="TEACHER", help=TEACHER, autocompletion=o.complete_checkpoint)
    ] = None,
    named: Annotated[
        str | None, o.option("--teacher --checkpoint", "CHECKPOINT", "The same.", autocompletion=o.complete_checkpoint)
    ] = None,
    objective: Annotated[str | None, o.option("--objective", "progressive|mmd", OBJECTIVE)] = None,
    rounds: Annotated[str | None, o.option("--rounds", "16,8,4,2,1", "Network steps of each round's student.")] = None,
    steps: Annotated[int | None, o.option("--steps", "N", "Optimizer steps of a round or stage.", min=1)] = None,
    data: Annotated[str | None, o.option("--data", "DIR", "Training data (default: the teacher's own).")] = None,
    seed: Annotated[int | None, o.option("--seed", "S", "Seed of everything drawn.", **o.SEEDS)] = None,
) -> None:
    """Distill a trained model into students that take few steps, in rounds; `elf resume` continues.

    Example: elf distill runs/my --output runs/students --rounds 8,4
    """
    from elfcli import api
    from elfcli.errors import InputError
    from elfcli.parallel.agree import broadcast_from_first, first_process_first
    from elfcli.runs.rounds import check_new_rounds
    from elfcli.ui.progress import say
    from elfcli.weights.open import open_source
    from elfcli.weights.settings import resolved_of

    if (teacher is None) == (named is None):
        raise InputError("pass the teacher once, as TEACHER or with --teacher")
    broadcast_from_first(lambda: check_new_rounds(output))
    words = [] if rounds is None else [word.strip() for word in rounds.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--rounds {rounds}: expected comma-separated numbers of network steps, such as 8,4")
    if objective == "ird" or (objective == "mmd" and words):
        why = "--rounds" if words else "--objective ird"
        raise InputError(f"{why}: --objective mmd trains the stages mmd and ird; set their length with --steps")
    flags = {"rounds": [int(word) for word in words] or None, "round_steps": steps, "data_path": data, "seed": seed,
             "distill_objective": objective, "stage_steps": None if steps is None else [steps, steps]}  # fmt: skip
    with first_process_first():
        source = open_source(teacher or named or "")
        say(source.description)
        layers = api.settings(list(settings.config), settings.config_style, settings.sets)
        resolved = resolved_of(source, task=settings.task, model=settings.model, flags=flags, **layers)

    from elfcli.training.distill import start_rounds

    start_rounds(source, resolved, output)
    earlier = "mmd" if resolved.config.distillation.distill_objective == "mmd" else "round-N"
    say(f"done: {output} (sample with `elf sample {output}`, an earlier student with {output}@{earlier})")
