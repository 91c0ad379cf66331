"""The rounds of `elf distill`: from the teacher's settings to the runs of its students, one after another.

Every round is an ordinary run whose settings name the teacher (config/schema.py: DistillationSettings);
training/step.py uses the loss of distillation for it (flow/distill.py, flow/mmd.py). The first student starts from the
teacher's weights, each later one from the average of the student before it; optimizer, schedule and average start
anew. The stages of `--objective mmd` are such rounds: mmd, then ird, whose teacher is the student of mmd.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from elfcli.config.entries import SettingOrigin
from elfcli.config.resolve import Resolved, changed, resolve_run
from elfcli.config.schema import Config, SamplingPreset
from elfcli.errors import ElfError
from elfcli.flow.mmd import kernel_group
from elfcli.parallel.agree import first_process_first
from elfcli.recipe.defaults import with_data
from elfcli.runs.examples import open_examples
from elfcli.runs.folder import CONFIG_FILE
from elfcli.runs.length import run_length
from elfcli.runs.lock import locked
from elfcli.runs.rounds import STAGES, Round, Rounds, read_rounds, round_folder, write_rounds
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
GENERATOR_ROWS, GENERATOR_WARMUP = 80, 100
GENERATOR_RATE = 40  # teacher's learning rate / that of the stages: 2e-3 and 5e-5 in the published recipes
GENERATOR_INITIAL = 0.6  # as MAX_INITIAL; 0.58 after the published 5,500 steps
GENERATOR_PASSES, GENERATOR_W = 8, 3.0
"""Recipe of the stages mmd and ird: examples of a batch, of which a fifth decodes; steps of warm-up; and how students
are sampled."""


def start_rounds(teacher: Source, resolved: Resolved, folder: Path) -> Path:
    """Train all rounds in a new folder; return it. resolved: the teacher's settings, with what the user has set."""
    with first_process_first():
        resolved = with_data(resolved)
        examples = open_examples(resolved.config)
    if resolved.config.distillation.distill_objective == "progressive":
        start = first_round(resolved, teacher, folder, len(examples))
    else:
        start = first_stage(resolved, teacher, folder)
    return train_rounds(folder, [(round_, False) for round_ in start[0].rounds], start)


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
    plan = Rounds(where(teacher), distillation.rounds, (steps,) * len(distillation.rounds))
    return plan, of_round(with_unset(resolved, chosen), folder, plan, plan.rounds[0])


def first_stage(resolved: Resolved, teacher: Source, folder: Path) -> tuple[Rounds, Resolved]:
    """Return the stages mmd and ird and the settings of the first; what the user has set stays."""
    config, steps = resolved.config, resolved.config.distillation.stage_steps
    decay = config.optimization.ema_decay
    if decay ** min(steps) > GENERATOR_INITIAL:
        decay = round(1 - 1 / max(min(steps) / 10, 1.0), 6)
    tokens = config.network.num_self_cond_cfg_tokens > 0  # otherwise w costs a second pass
    w = min(GENERATOR_W, config.objective.self_cond_cfg_max) if tokens else 1.0
    sampled = SamplingPreset(sampling_method="refine", num_sampling_steps=(GENERATOR_PASSES,), self_cond_scales=(w,))
    user = {name for name, origin in resolved.origins.items() if origin.layer in USER_LAYERS}
    chosen: dict[str, dict[str, Any]] = {
        "distillation": {"teacher": where(teacher), "teacher_step": version(teacher), "teacher_cfg": 1.0},
        "training": {"minutes": None, "resume": None, "eval_every_epochs": 0.0}
        | ({} if user & {"batch_size", "global_batch_size"} else
           {"batch_size": generator_rows(config, jax.device_count()), "global_batch_size": None}),
        "optimization": {"warmup_steps": min(GENERATOR_WARMUP, min(steps) // 10), "ema_decay": decay,
                         "lr_schedule": "constant", "weight_decay": 0.0, "grad_accum_steps": 1}
        | ({} if user & {"lr", "blr"} else {"lr": config.peak_lr / GENERATOR_RATE}),
        "data": {"buckets": ()},
        "evaluation": {"sampling_configs_path": None},
        "tracking": {"hub_repo": None, "hf_repo_id": None, "wandb_run_name": None},
    }  # fmt: skip
    resolved = with_unset(resolved, chosen)
    if "sampling" not in user:
        resolved = with_sampling(resolved, sampled)
    plan = Rounds(where(teacher), STAGES[: len(steps)], steps)
    return plan, of_round(resolved, folder, plan, plan.rounds[0])


def generator_rows(config: Config, devices: int) -> int:
    """Return the batch of the stages: near the recipe's, or the teacher's if that is smaller, and of whole groups."""
    cfg = config.objective
    rows = min(config.global_batch * config.optimization.grad_accum_steps, GENERATOR_ROWS)
    texts = config.distillation.kernel_texts

    def fits(size: int) -> bool:
        return kernel_group(size, size // devices, cfg, texts) is not None

    near = sorted(range(devices, 2 * max(rows, devices * texts) + 1, devices), key=lambda size: abs(size - rows))
    return next(filter(fits, near), -(-rows // devices) * devices)


def with_unset(resolved: Resolved, chosen: dict[str, dict[str, Any]]) -> Resolved:
    """Return the settings with those of the values, by section, that the user has not set."""
    for section, values in chosen.items():
        free = {name: value for name, value in values.items() if resolved.origins[name].layer not in USER_LAYERS}
        resolved = changed(resolved, section, LAYER, **free)
    return resolved


def with_sampling(resolved: Resolved, preset: SamplingPreset) -> Resolved:
    """Return the settings with this sampling preset."""
    config = resolved.config.model_copy(update={"sampling": (preset,)})
    return replace(resolved, config=config, origins=resolved.origins | {"sampling": SettingOrigin(LAYER)})


def where(teacher: Source) -> str:
    """Return the teacher as a run elsewhere can open it: an absolute path, or its Hub name."""
    local = teacher.folder if teacher.kind in ("run", "exported") else Path(teacher.name).expanduser()
    return str(local.absolute()) if local and local.exists() and not teacher.from_hub else teacher.name


def version(teacher: Source) -> int | None:
    """Return the step of a teacher that has several, so that training it further changes nothing."""
    return teacher.step if teacher.kind in ("run", "reference") else None


def of_round(resolved: Resolved, folder: Path, plan: Rounds, round_: Round) -> Resolved:
    """Return the settings of one round. It starts from the student of the round before it, or from the teacher."""
    number = plan.rounds.index(round_)
    before = str(round_folder(folder, plan.rounds[number - 1]).absolute()) if number else None
    training: dict[str, Any] = {"output_dir": str(round_folder(folder, round_)), "init_from": before}
    if isinstance(round_, str):
        steps = plan.steps[number]
        training |= {"init_from": None, "steps": steps, "save_every_steps": max(steps // 5, 1)}
        stage: dict[str, Any] = {"distill_objective": round_, "student_steps": 1}
        if before is not None:
            stage |= {"teacher": before, "teacher_step": plan.steps[number - 1]}
        return changed(changed(resolved, "training", LAYER, **training), "distillation", LAYER, **stage)
    resolved = changed(resolved, "training", LAYER, **training)
    resolved = changed(resolved, "distillation", LAYER, student_steps=round_)
    if resolved.origins["sampling"].layer in USER_LAYERS:
        return resolved
    return with_sampling(resolved, student_sampling(resolved.config, round_))


def train_rounds(
    folder: Path, todo: Sequence[tuple[Round, bool]], start: tuple[Rounds, Resolved] | None = None, **resuming: Any
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
        plan = start[0] if start else read_rounds(folder)
        for round_, begun in todo:
            run = round_folder(folder, round_)
            say(f"\n{plan.name(round_)}, {run}")
            with pointing_to(folder, run):
                if begun:
                    resume_run(run, **resuming)
                elif start and round_ == plan.rounds[0]:
                    start_run(start[1], run, before=enter)
                else:
                    before = round_folder(folder, plan.rounds[plan.rounds.index(round_) - 1])
                    settings = resolve_run(before / CONFIG_FILE, resuming.get("sets", ()))
                    start_run(of_round(settings, folder, plan, round_), run)
    return folder


@contextmanager
def pointing_to(folder: Path, run: Path) -> Iterator[None]:
    """Let errors name the whole folder as what to resume, not one round's run."""
    try:
        yield
    except ElfError as error:
        error.args = (str(error).replace(f"elf resume {run}", f"elf resume {folder}"), *error.args[1:])
        raise
