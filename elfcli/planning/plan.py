"""Estimates the cost of a run by compiling its real program for a target machine, which does not need to exist. On this
machine (`local`) the compiled program is executed a few times to measure the time of a step."""

import re
import time
from dataclasses import dataclass, replace
from typing import Any

import jax

from elfcli.config.cards import card_of
from elfcli.config.check import check_devices
from elfcli.config.resolve import Resolved, changed
from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.flow.mmd import kernel_group
from elfcli.parallel.memory import EXHAUSTED
from elfcli.parallel.timing import seconds_per_step
from elfcli.planning.chips import Machine, find_machine
from elfcli.planning.hlo import program_cost
from elfcli.planning.programs import Planned, look_at_data, sampling_batch, training_step
from elfcli.planning.slices import LOCAL
from elfcli.recipe.apply import preview
from elfcli.recipe.choose import uses_recipe
from elfcli.recipe.cooccurrence import VECTOR_WIDTH
from elfcli.recipe.vectors import will_be_vectors
from elfcli.runs.rounds import STAGES
from elfcli.sampling.settings import settings_of
from elfcli.training.distill import generator_rows
from elfcli.training.step import device_group, num_groups
from elfcli.ui.progress import say

TRAINING = "training step"
MAX_TIMED_SECONDS = 300
"""Longest step, in seconds by XLA's analysis, that is timed. The analysis was up to five times too high on a CPU."""
MEASURING = 20.0  # seconds after which no further execution begins


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of an optimizer step, or of a batch of samples, in bytes and seconds; chips are devices. time_measured:
    whether seconds and chip-hours come from executions, not from XLA's analysis."""

    topology: str
    chips: int
    program: str
    batch_size: int
    flops_per_chip: float = 0.0
    bytes_accessed_per_chip: float = 0.0
    collective_bytes_per_chip: float = 0.0
    peak_bytes_per_chip: int
    argument_bytes_per_chip: int = 0
    temporary_bytes_per_chip: int
    chip_memory_bytes: int
    fits: bool
    compile_seconds: float
    step_seconds_estimate: float = 0.0
    time_measured: bool = False
    collective_seconds_estimate: float | None = None
    fsdp: int
    total_steps: int | None
    chip_hours_estimate: float | None = None
    notes: tuple[str, ...]
    advice: tuple[str, ...]


def plan_training(config: Config, topology: str, num_examples: int | None = None, may_divide: bool = False) -> Estimate:
    """Plan `elf train`. num_examples: if there is no local data. may_divide: accumulate over halves of a batch that
    does not fit, as `elf train` does if it chose the batch. Raise InputError for unequal shares of the batch."""
    machine = find_machine(topology)
    if problems := check_devices(config, len(machine.devices)):
        raise InputError("\n".join(problems))
    vocabulary, count, notes = look_at_data(config)
    planned = training_step(config, machine, vocabulary)
    count, steps = num_examples or count, config.training.steps
    if steps is None and count and not config.timed:
        per_step = config.global_batch * config.optimization.grad_accum_steps
        steps = int(config.training.epochs * (count // config.global_batch) * config.global_batch / per_step)
    if steps is None and not config.timed:
        notes = (*notes, "the run's length is unknown: pass --examples, --data or -s steps=N")
    result = estimate(config, machine, planned, TRAINING, config.global_batch, steps, notes, mean_passes(config))
    half = config.global_batch // 2
    if may_divide and not result.fits and half and half % len(machine.devices) == 0:
        parts = 2 * config.optimization.grad_accum_steps
        say(f"a batch of {config.global_batch} does not fit: planning {parts} of {half} per optimizer step")
        training = config.training.model_copy(update={"batch_size": half, "global_batch_size": None})
        optimization = config.optimization.model_copy(update={"grad_accum_steps": parts})
        divided = config.model_copy(update={"training": training, "optimization": optimization})
        return plan_training(divided, topology, num_examples, may_divide=True)
    if config.timed and (step := result.step_seconds_estimate):
        minutes = config.training.minutes or 0.0
        hours = len(machine.devices) * minutes / 60
        result = replace(result, total_steps=int(60 * minutes / step), chip_hours_estimate=hours)
    return with_saved_traffic(result, config, machine, vocabulary)


def settings_to_plan(resolved: Resolved, machine: Machine, keep_batch: bool = False) -> Resolved:
    """Return the settings that `elf train` would choose on this machine, with random vectors for those it would
    compute. keep_batch: do not count a batch size of the reference per device."""
    devices = 1 if keep_batch else len(machine.devices)
    card = card_of(getattr(machine.devices[0], "device_kind", ""))
    found = preview(resolved, machine=(machine.platform, devices, card))
    if will_be_vectors(found.config.encoder.encoder_model_name):
        found = changed(found, "encoder", None, encoder_model_name="embedding", embedding_dim=VECTOR_WIDTH)
    if uses_recipe(resolved) and found is not resolved and found.config.data.data_path:
        model, config = found.config.network.model or "its network", found.config
        sizes = f"max_length {config.data.max_length}, batch {config.global_batch}"
        say(f"planning the choice of `elf train`: {model}, {sizes}")
    return found


def plan_rounds(config: Config, topology: str, num_examples: int | None = None) -> list[Estimate]:
    """Plan the rounds of `elf distill` (round_steps, or one epoch) with the passes of a teacher of these settings."""
    rounds, plan = [], config.distillation
    training = config.training.model_copy(update={"minutes": None, "epochs": 1.0, "steps": plan.round_steps})
    guided = config.data.max_input_length > 0
    cfg = plan.teacher_cfg if plan.teacher_cfg is not None else settings_of(config.sampling)[0].cfg if guided else 1.0
    for steps in plan.rounds:
        distillation = plan.model_copy(update={"student_steps": steps, "teacher_cfg": cfg})
        settings = config.model_copy(update={"training": training, "distillation": distillation})
        passes = distillation.sub_steps * (2 if cfg != 1 else 1)
        program = f"round of the {steps}-step student, {passes} passes of the teacher a step"
        rounds.append(replace(plan_training(settings, topology, num_examples), program=program))
    return rounds


def plan_stages(config: Config, topology: str) -> list[Estimate]:
    """Plan the stages of `elf distill --objective mmd` for a teacher of these settings; none if they are not for it."""
    plan, stages = config.distillation, []
    if config.data.max_input_length or not config.objective.self_cond_prob:
        return []
    devices = len(find_machine(topology).devices)
    rows = generator_rows(config, devices)
    chosen: dict[str, dict[str, Any]] = {
        "data": {"buckets": ()},
        "optimization": {"grad_accum_steps": 1},
        "objective": {"group_size": kernel_group(rows, rows // devices, config.objective, plan.kernel_texts)},
    }
    for name, steps in zip(STAGES, plan.stage_steps, strict=False):
        chosen["training"] = {"minutes": None, "steps": steps, "batch_size": rows, "global_batch_size": None}
        chosen["distillation"] = {"distill_objective": name, "student_steps": 1, "sigma": 1.0}
        sections = {part: getattr(config, part).model_copy(update=values) for part, values in chosen.items()}
        passes = f"{plan.ird_passes} passes of the frozen student a step"
        if name == "mmd":
            passes = f"{mean_passes(config.model_copy(update=sections)):g} bootstrap passes a step on average"
        program = f"stage {name}, {passes}"
        stages.append(replace(plan_training(config.model_copy(update=sections), topology), program=program))
    return stages


def mean_passes(config: Config) -> float | None:
    """Return the mean number of bootstrap passes of a step of MMD, None in other training."""
    settings = config.distillation
    mean = (1 - settings.no_bootstrap_prob) * (1 + settings.max_bootstrap_steps) / 2
    return mean if settings.distill_objective == "mmd" else None


def with_saved_traffic(found: Estimate, config: Config, machine: Machine, vocabulary: int) -> Estimate:
    """Add a note on the traffic that the default groups would cause, if groups follow the devices' shares."""
    size = device_group(config, len(machine.devices))
    if size is None or not found.fits:
        return found
    usual = config.global_batch // num_groups(config.global_batch, config.objective)
    objective = config.objective.model_copy(update={"group_size": usual})
    planned = training_step(config.model_copy(update={"objective": objective}), machine, vocabulary)
    sent = program_cost(planned.lower().compile(), machine.rates).collective_bytes
    note = (f"group_size {size}, a device's share of the batch: groups of {usual} would cross devices and send "
            f"{sent / 1e9:.3g} GB instead of {found.collective_bytes_per_chip / 1e9:.3g}")  # fmt: skip
    return replace(found, notes=(*found.notes, note))


def plan_sampling(config: Config, topology: str, batch_size: int, num_samples: int | None = None) -> Estimate:
    """Plan `elf sample` with the first sampling setting. A step is a batch of texts."""
    machine = find_machine(topology)
    devices = len(machine.devices)
    batch_size = -(-batch_size // devices) * devices
    (vocabulary, _, notes), setting = look_at_data(config), settings_of(config.sampling)[0]
    planned = sampling_batch(config, machine, vocabulary, setting, batch_size)
    batches = -(-(num_samples or config.evaluation.num_samples) // batch_size) * setting.candidates
    program, trips = f"sampling {setting.name}", setting.num_sampling_steps
    return estimate(config, machine, planned, program, batch_size, batches, notes, trips)


def estimate(
    config: Config, machine: Machine, planned: Planned, program: str, batch_size: int, steps: int | None,
    notes: tuple[str, ...], trips: float | None = None,
) -> Estimate:  # fmt: skip
    """Compile the program, time it if it is for this machine, or estimate its memory if that runs out. steps: how often
    the run executes it. trips: see hlo.program_cost."""
    lowered, start, fits = planned.lower(), time.monotonic(), False
    try:
        compiled = lowered.compile()
        seconds = time.monotonic() - start
        figures = compiled_figures(compiled, machine, trips)
        fits = figures["peak_bytes_per_chip"] <= machine.memory
        if machine.gpus:
            notes = (*notes, *machine.gpus.notes(compiled.as_text(), figures["collective_bytes_per_chip"]))
    except Exception as error:
        seconds, needed = time.monotonic() - start, over_memory(str(error))
        if needed is None:
            raise
        figures = {"peak_bytes_per_chip": needed, "temporary_bytes_per_chip": needed}
        notes = (*notes, "the compiler ran out of memory: at least this much is needed, nothing else is known")
    if fits and machine.name == LOCAL:
        measured, why_not = timed(compiled, planned, figures["step_seconds_estimate"])
        figures, notes = figures | measured, (*notes, *why_not)
    each, devices = figures.get("step_seconds_estimate"), len(machine.devices)
    return Estimate(
        topology=machine.name, chips=devices, chip_memory_bytes=machine.memory, program=program, batch_size=batch_size,
        fsdp=planned.fsdp, total_steps=steps, fits=fits, compile_seconds=seconds, notes=notes,
        chip_hours_estimate=steps * each * devices / 3600 if steps and each else None,
        advice=() if fits else tuple(ways_to_fit(config, machine, program == TRAINING, planned.fsdp)), **figures,
    )  # fmt: skip


def compiled_figures(compiled: Any, machine: Machine, trips: float | None) -> dict[str, Any]:
    """Return the fields of Estimate that come from the compiled program."""
    memory, cost = compiled.memory_analysis(), program_cost(compiled, machine.rates, trips)
    arguments, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    return {
        "flops_per_chip": cost.flops,
        "bytes_accessed_per_chip": cost.bytes,
        "collective_bytes_per_chip": cost.collective_bytes,
        "peak_bytes_per_chip": arguments + memory.output_size_in_bytes + temporary - memory.alias_size_in_bytes,
        "argument_bytes_per_chip": arguments,
        "temporary_bytes_per_chip": temporary,
        "step_seconds_estimate": cost.seconds,
        "collective_seconds_estimate": cost.collective_bytes / machine.links if machine.links else None,
    }


def timed(compiled: Any, planned: Planned, guess: float) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return (fields of Estimate with the measured time, ()), or ({}, a note with the reason why it is missing)."""
    if guess > MAX_TIMED_SECONDS:
        return {}, (f"not timed: a step may take {guess:,.0f} s on this machine (limit: {MAX_TIMED_SECONDS} s)",)
    say("timing the compiled program on this machine")
    try:
        seconds = seconds_per_step(planned.executions(compiled), at_most=MEASURING)
    except jax.errors.JaxRuntimeError as error:
        if EXHAUSTED not in str(error):
            raise
        return {}, ("not timed: other programs leave too little of the device's memory",)
    return {"step_seconds_estimate": seconds, "time_measured": True}, ()


def over_memory(message: str) -> int | None:
    """Return the least bytes that a program needs, from the compiler's out-of-memory error; None for other errors."""
    match = re.search(r"required for HLO temporaries \(([\d.]+)([KMG])\) exceeds|Used ([\d.]+)([KMG]) of", message)
    if match is None:
        return None
    size, unit = filter(None, match.groups())
    return int(float(size) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])


def ways_to_fit(config: Config, machine: Machine, training: bool, fsdp: int) -> list[str]:
    """Return settings that need less memory, the cheapest first."""
    devices = len(machine.devices)
    if not training:
        return ["a smaller --batch-size"]
    ways = []
    if machine.gpus and config.training.unroll == "auto" and config.training.remat != "full":
        ways.append("-s unroll=none (the blocks in a loop, whose backward pass recomputes more: a longer step)")
    if config.training.remat != "full":
        first = "" if config.training.remat == "dots" or machine.platform != "cpu" else "remat=dots, then "
        ways.append(f"-s {first}remat=full (recomputes blocks in the backward pass: about a third more arithmetic)")
    if fsdp < devices:
        ways.append(f"-s fsdp={devices} (weights, average and optimizer state sharded over all devices)")
    half = config.global_batch // 2
    if half and half % devices == 0:
        accumulate = 2 * config.optimization.grad_accum_steps
        ways.append(f"-s batch_size={half} -s grad_accum_steps={accumulate} (the same step in smaller parts)")
    return ways or ["a larger slice: each device has a single example already"]
