"""A folder of `elf distill`: `round-8/` is the run whose student takes 8 steps, or `mmd/` and `ird/` are the stages of
`--objective mmd`; `distill.json` the plan, which is written before the first round and never changed, `.lock` is locked
by the process that trains any of the rounds."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from elfcli.errors import ElfError, InputError
from elfcli.outputs import write_whole
from elfcli.runs.folder import check_new, checkpoint_steps, is_run

ROUNDS_FILE = "distill.json"
STAGES = ("mmd", "ird")
Round = int | str  # network steps of the round's student, or the name of a stage


@dataclass(frozen=True)
class Rounds:
    """The plan of a distillation. steps: optimizer steps of each round. teacher: for the reader only; the runs record
    the teacher that they use."""

    teacher: str
    rounds: tuple[Round, ...]
    steps: tuple[int, ...]

    def name(self, round_: Round) -> str:
        """Return a round in words: `round 2 of 5: 8-step student`."""
        kind = f"{round_.upper()} student" if isinstance(round_, str) else f"{round_}-step student"
        what = "stage" if isinstance(round_, str) else "round"
        return f"{what} {self.rounds.index(round_) + 1} of {len(self.rounds)}: {kind}"


def round_folder(folder: Path, round_: Round) -> Path:
    """Return the run folder of a round."""
    return folder / (round_ if isinstance(round_, str) else f"round-{round_}")


def is_distilled(folder: Path) -> bool:
    """Return whether this is a folder of `elf distill`."""
    return (folder / ROUNDS_FILE).is_file()


def round_runs(folder: Path) -> dict[str, Path]:
    """Return the runs of the rounds that have begun, by name; none if this is not a folder of `elf distill`."""
    known = [*sorted(folder.glob("round-*/")), *(folder / stage for stage in STAGES)] if is_distilled(folder) else []
    return {path.name: path for path in known if is_run(path)}


def read_rounds(folder: Path) -> Rounds:
    """Return the plan. Raise ElfError if the file is damaged. Earlier versions wrote one number of steps for all."""
    path = folder / ROUNDS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rounds = tuple(name if name in STAGES else int(name) for name in content["rounds"])
        steps = content["steps"] if isinstance(content["steps"], list) else [content["steps"]] * len(rounds)
        if len(rounds) != len(steps):
            raise ValueError(f"{len(steps)} numbers of steps for {len(rounds)} rounds")
        return Rounds(str(content["teacher"]), rounds, tuple(map(int, steps)))
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
    elif round_runs(folder):
        raise InputError(f"{folder} already holds a distillation; continue it with `elf resume {folder}`, or choose "
                         "another --output")  # fmt: skip


def finished_rounds(folder: Path, plan: Rounds) -> list[Round]:
    """Return the rounds that have a checkpoint at their last step."""
    rounds = zip(plan.rounds, plan.steps, strict=True)
    return [one for one, steps in rounds if max(checkpoint_steps(round_folder(folder, one)), default=0) >= steps]


def remaining_rounds(folder: Path) -> list[tuple[Round, bool]]:
    """Return (round, whether it has begun) of every unfinished round. Raise InputError if none has begun."""
    plan = read_rounds(folder)
    finished = finished_rounds(folder, plan)
    rounds = [(one, is_run(round_folder(folder, one))) for one in plan.rounds if one not in finished]
    if len(rounds) == len(plan.rounds) and not rounds[0][1]:
        raise InputError(f"{folder}: no round has begun; run `elf distill` again with this --output")
    return rounds


def last_student(folder: Path) -> Path:
    """Return the run of the last finished round, else of the first round. Raise InputError if it has no checkpoint."""
    plan = read_rounds(folder)
    run = round_folder(folder, [plan.rounds[0], *finished_rounds(folder, plan)][-1])
    if not is_run(run) or not checkpoint_steps(run):
        raise InputError(f"{folder}: no round has a checkpoint yet")
    return run
