"""A folder of `elf distill`: the rounds of a distillation, each an ordinary run, one after another.

distill.json    teacher, rounds, optimiser steps of a round; written whole before the first round, never changed
round-8/        the run whose student takes 8 steps
.lock           as in a run: locked by the process that trains any of the rounds
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from elfcli.errors import ElfError, InputError
from elfcli.outputs import write_whole
from elfcli.runs.folder import check_new, checkpoint_steps, is_run

ROUNDS_FILE = "distill.json"


@dataclass(frozen=True)
class Rounds:
    """rounds: network steps of each round's student. steps: optimiser steps of a round. teacher: for the reader; the
    runs hold what they use."""

    teacher: str
    rounds: tuple[int, ...]
    steps: int


def round_folder(folder: Path, student_steps: int) -> Path:
    return folder / f"round-{student_steps}"


def is_distilled(folder: Path) -> bool:
    return (folder / ROUNDS_FILE).is_file()


def read_rounds(folder: Path) -> Rounds:
    """ElfError where the file is damaged."""
    path = folder / ROUNDS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Rounds(str(found["teacher"]), tuple(map(int, found["rounds"])), int(found["steps"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ElfError(f"{path}: damaged ({error}); the rounds in it are ordinary runs: name one of them") from None


def write_rounds(folder: Path, rounds: Rounds) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ROUNDS_FILE, json.dumps(asdict(rounds), indent=1) + "\n")


def check_new_rounds(folder: Path) -> None:
    """InputError where no distillation can begin. One that was stopped before its first round may begin again."""
    if is_distilled(folder):
        if any(is_run(path) for path in folder.glob("round-*/")):
            raise InputError(f"{folder} already holds a distillation; continue it with `elf resume {folder}`, or give "
                             "another --output")  # fmt: skip
        return
    check_new(folder)


def is_finished(folder: Path, student_steps: int, steps: int) -> bool:
    return max(checkpoint_steps(round_folder(folder, student_steps)), default=0) >= steps


def remaining_rounds(folder: Path) -> list[tuple[int, bool]]:
    """(network steps, whether it was begun) of every round that is not finished. InputError where none was begun."""
    plan = read_rounds(folder)
    found = [(n, is_run(round_folder(folder, n))) for n in plan.rounds if not is_finished(folder, n, plan.steps)]
    if len(found) == len(plan.rounds) and not found[0][1]:
        raise InputError(f"{folder}: no round was begun; give `elf distill` again, with this --output")
    return found


def last_student(folder: Path) -> Path:
    """The run of the last round that is finished, else of the first, if it has a checkpoint. InputError for none."""
    plan = read_rounds(folder)
    done = [n for n in plan.rounds if is_finished(folder, n, plan.steps)]
    run = round_folder(folder, (done or plan.rounds)[-1 if done else 0])
    if not is_run(run) or not checkpoint_steps(run):
        raise InputError(f"{folder}: no round has a checkpoint yet")
    return run
