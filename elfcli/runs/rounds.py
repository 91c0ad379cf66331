"""A folder of `elf distill`: `round-8/` is the run whose student takes 8 steps, `distill.json` the plan, which is
written before the first round and never changed, `.lock` is locked by the process that trains any of the rounds."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from elfcli.errors import ElfError, InputError
from elfcli.outputs import write_whole
from elfcli.runs.folder import check_new, checkpoint_steps, is_run

ROUNDS_FILE = "distill.json"


@dataclass(frozen=True)
class Rounds:
    """The plan of a distillation. rounds: network steps of each round's student. steps: optimizer steps of a round.
    teacher: for the reader only; the runs record the teacher that they use."""

    teacher: str
    rounds: tuple[int, ...]
    steps: int


def round_folder(folder: Path, student_steps: int) -> Path:
    """Return the run folder of a round."""
    return folder / f"round-{student_steps}"


def is_distilled(folder: Path) -> bool:
    """Return whether this is a folder of `elf distill`."""
    return (folder / ROUNDS_FILE).is_file()


def read_rounds(folder: Path) -> Rounds:
    """Return the plan. Raise ElfError if the file is damaged."""
    path = folder / ROUNDS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Rounds(str(content["teacher"]), tuple(map(int, content["rounds"])), int(content["steps"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ElfError(f"{path}: damaged ({error}); its rounds are ordinary runs: name one of them") from None


def write_rounds(folder: Path, rounds: Rounds) -> None:
    """Write the plan of a new distillation."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ROUNDS_FILE, json.dumps(asdict(rounds), indent=1) + "\n")


def check_new_rounds(folder: Path) -> None:
    """Raise InputError if no distillation can begin. One that was stopped before its first round may begin again."""
    if not is_distilled(folder):
        check_new(folder)
    elif any(is_run(path) for path in folder.glob("round-*/")):
        raise InputError(f"{folder} already holds a distillation; continue it with `elf resume {folder}`, or choose "
                         "another --output")  # fmt: skip


def is_finished(folder: Path, student_steps: int, steps: int) -> bool:
    """Return whether a round has a checkpoint at its last step."""
    return max(checkpoint_steps(round_folder(folder, student_steps)), default=0) >= steps


def remaining_rounds(folder: Path) -> list[tuple[int, bool]]:
    """Return (network steps, whether it has begun) of every unfinished round. Raise InputError if none has begun."""
    plan = read_rounds(folder)
    rounds = [(n, is_run(round_folder(folder, n))) for n in plan.rounds if not is_finished(folder, n, plan.steps)]
    if len(rounds) == len(plan.rounds) and not rounds[0][1]:
        raise InputError(f"{folder}: no round has begun; run `elf distill` again with this --output")
    return rounds


def last_student(folder: Path) -> Path:
    """Return the run of the last finished round, else of the first round. Raise InputError if it has no checkpoint."""
    plan = read_rounds(folder)
    finished = [n for n in plan.rounds if is_finished(folder, n, plan.steps)]
    run = round_folder(folder, finished[-1] if finished else plan.rounds[0])
    if not is_run(run) or not checkpoint_steps(run):
        raise InputError(f"{folder}: no round has a checkpoint yet")
    return run
