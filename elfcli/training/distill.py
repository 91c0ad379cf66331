"""The rounds of `elf distill`: from the teacher's settings to the runs of its students, one after another.

Every round is an ordinary run whose settings name the teacher (config/schema.py: DistillationSettings);
training/step.py uses the loss of distillation for it (flow/distill.py). The first student starts from the teacher's
weights, each later one from the average of the student before it; optimizer, schedule and average start anew.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from elfcli.config.entries import SettingOrigin
from elfcli.config.resolve import Resolved, changed, resolve_run
from elfcli.config.schema import Config, SamplingPreset
from elfcli.errors import ElfError
from elfcli.parallel.agree import first_process_first
from elfcli.recipe.defaults import with_data
from elfcli.runs.examples import open_examples
from elfcli.runs.folder import CONFIG_FILE
from elfcli.runs.length import run_length
from elfcli.runs.lock import locked
from elfcli.runs.rounds import Rounds, read_rounds, round_folder, write_rounds
from elfcli.sampling.settings import settings_of
from elfcli.training.start import resume_run, start_run
from elfcli.ui.progress import is_first_process, say
from elfcli.weights.source import Source

LAYER = "elf distill"
"""Origin of what is chosen in this file."""
USER_LAYERS = ("--set", "command line")
"""Origins of what the user has set."""
ANNEALED = 20  # learning-rate divisor for students whose teacher used a cosine schedule
MAX_INITIAL = 0.25  # share of a student's average that may be its initial weights


def start_rounds(teacher: Source, resolved: Resolved, folder: Path) -> Path:
    """Train all rounds in a new folder; return it. resolved: the teacher's settings, with what the user has set."""
    with first_process_first():
        resolved = with_data(resolved)
        examples = open_examples(resolved.config)
    start = first_round(resolved, teacher, folder, len(examples))
    return train_rounds(folder, [(student_steps, False) for student_steps in start[0].rounds], start)


def student_sampling(config: Config, student_steps: int) -> SamplingPreset:
    """Return how a student is sampled: as the authors do, or, with sources, as was best on the demo's task."""
    steps = (student_steps,)
    if config.data.takes_sources:
        return SamplingPreset(sampling_method="ode", num_sampling_steps=steps)
    gamma, w = (1.5, 2.5) if student_steps <= 8 else (2.0, 2.0)
    return SamplingPreset(sampling_method="sde", num_sampling_steps=steps, self_cond_scales=(w,), sde_gamma=gamma)


def first_round(resolved: Resolved, teacher: Source, folder: Path, num_examples: int) -> tuple[Rounds, Resolved]:
    """Return the rounds and the settings of the first; what the user has set stays."""
    config, distillation = resolved.config, resolved.config.distillation
    training: dict[str, Any] = {"minutes": None, "epochs": 1.0, "steps": distillation.round_steps}
    steps = run_length(changed(resolved, "training", None, **training).config, num_examples).total_steps
    decay = config.optimization.ema_decay
    if decay**steps > MAX_INITIAL:
        decay = round(1 - 1 / max(steps / 10, 1.0), 6)
    cfg = settings_of(config.sampling)[0].cfg if config.data.max_input_length else 1.0
    annealed = config.optimization.lr_schedule == "cosine"  # the full rate would undo the end of its training
    rate = {"lr": config.peak_lr / ANNEALED} if annealed else {}
    chosen: dict[str, dict[str, Any]] = {
        "distillation": {"teacher": where(teacher), "teacher_step": version(teacher), "round_steps": steps}
        | ({"teacher_cfg": cfg} if distillation.teacher_cfg is None else {}),
        "training": training
        | {"steps": steps, "resume": None, "eval_every_epochs": 0.0, "save_every_steps": max(steps // 5, 1)},
        "optimization": {"warmup_steps": steps // 10, "ema_decay": decay, **rate},
        "data": {"buckets": ()},  # each bucket is compiled for, and rounds are short
        "evaluation": {"sampling_configs_path": None},
        "tracking": {"hub_repo": None, "hf_repo_id": None, "wandb_run_name": None},
    }  # fmt: skip
    for section, values in chosen.items():
        free = {name: value for name, value in values.items() if resolved.origins[name].layer not in USER_LAYERS}
        resolved = changed(resolved, section, LAYER, **free)
    return Rounds(where(teacher), distillation.rounds, steps), of_round(resolved, folder, distillation.rounds[0], None)


def where(teacher: Source) -> str:
    """Return the teacher as a run elsewhere can open it: an absolute path, or its Hub name."""
    local = teacher.folder if teacher.kind in ("run", "exported") else Path(teacher.name).expanduser()
    return str(local.absolute()) if local and local.exists() and not teacher.from_hub else teacher.name


def version(teacher: Source) -> int | None:
    """Return the step of a teacher that has several, so that training it further changes nothing."""
    return teacher.step if teacher.kind in ("run", "reference") else None


def of_round(resolved: Resolved, folder: Path, student_steps: int, before: Path | None) -> Resolved:
    """Return the settings of one round. before: the run whose student it starts from; None: the teacher."""
    output, init_from = str(round_folder(folder, student_steps)), str(before.absolute()) if before else None
    resolved = changed(resolved, "training", LAYER, output_dir=output, init_from=init_from)
    resolved = changed(resolved, "distillation", LAYER, student_steps=student_steps)
    if resolved.origins["sampling"].layer in USER_LAYERS:
        return resolved
    config = resolved.config.model_copy(update={"sampling": (student_sampling(resolved.config, student_steps),)})
    return replace(resolved, config=config, origins=resolved.origins | {"sampling": SettingOrigin(LAYER)})


def train_rounds(
    folder: Path, todo: Sequence[tuple[int, bool]], start: tuple[Rounds, Resolved] | None = None, **resuming: Any
) -> Path:
    """Train the rounds of `remaining_rounds`, or of `first_round` from the start; return the folder.

    resuming: sets, fallback and other_data, as `resume_run` takes them; later rounds keep changed settings.
    """
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(locked(folder))
            if start and is_first_process():
                write_rounds(folder, start[0])

        if not start:
            enter()
        rounds = start[0].rounds if start else read_rounds(folder).rounds
        for student_steps, begun in todo:
            run = round_folder(folder, student_steps)
            say(f"\nround {rounds.index(student_steps) + 1} of {len(rounds)}: {student_steps}-step student, {run}")
            with pointing_to(folder, run):
                if begun:
                    resume_run(run, **resuming)
                elif start and student_steps == rounds[0]:
                    start_run(start[1], run, before=enter)
                else:
                    before = round_folder(folder, rounds[rounds.index(student_steps) - 1])
                    settings = resolve_run(before / CONFIG_FILE, resuming.get("sets", ()))
                    start_run(of_round(settings, folder, student_steps, before), run)
    return folder


@contextmanager
def pointing_to(folder: Path, run: Path) -> Iterator[None]:
    """Let errors name the whole folder as what to resume, not one round's run."""
    try:
        yield
    except ElfError as error:
        error.args = (str(error).replace(f"elf resume {run}", f"elf resume {folder}"), *error.args[1:])
        raise
