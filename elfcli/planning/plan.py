"""What a run will cost: its real program compiled for the machine it shall run on, which need not be here."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from elfcli.config.check import check_devices
from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.evaluation.ways import settings_of
from elfcli.planning.chips import Machine, find_machine
from elfcli.planning.hlo import program_cost
from elfcli.planning.programs import look_at_data, sampling_batch, training_step


@dataclass(frozen=True)
class Plan:
    """Of one optimiser step, or of one batch of samples. Bytes and seconds; chips are devices."""

    topology: str
    chips: int
    program: str
    batch_size: int
    flops_per_chip: float
    bytes_accessed_per_chip: float
    collective_bytes_per_chip: float
    peak_bytes_per_chip: int
    argument_bytes_per_chip: int
    temporary_bytes_per_chip: int
    chip_memory_bytes: int
    fits: bool
    compile_seconds: float
    step_seconds_estimate: float
    collective_seconds_estimate: float | None
    fsdp: int
    total_steps: int | None
    chip_hours_estimate: float | None
    notes: tuple[str, ...]
    advice: tuple[str, ...]

    def as_dict(self) -> dict:
        return asdict(self)


def plan_training(config: Config, topology: str, num_examples: int | None = None) -> Plan:
    """Plans `elf train` on a machine. num_examples: of the training data, where that is not here.

    InputError where the batch does not share out over the chips, or the encoder's shape cannot be had.
    """
    machine = find_machine(topology)
    problems = check_devices(config, len(machine.devices))
    if problems:
        raise InputError("\n".join(problems))
    task = look_at_data(config)
    lower, fsdp = training_step(config, machine, task.vocabulary)
    count = num_examples or task.num_examples
    steps = config.training.steps
    if steps is None and count:
        per_step = config.global_batch * config.optimization.grad_accum_steps
        steps = int(config.training.epochs * (count // config.global_batch) * config.global_batch / per_step)
    notes = [*task.notes]
    if steps is None:
        notes.append("the run's length is not known: give --examples, --data or -s steps=N")
    return _plan(config, machine, lower, program="training step", batch_size=config.global_batch, fsdp=fsdp,
                 steps=steps, notes=notes)  # fmt: skip


def plan_sampling(config: Config, topology: str, batch_size: int, num_samples: int | None = None) -> Plan:
    """Plans `elf sample` with the first of the settings' ways of sampling; a step is a batch of texts."""
    machine = find_machine(topology)
    devices = len(machine.devices)
    batch_size = -(-batch_size // devices) * devices
    task, setting = look_at_data(config), settings_of(config.sampling)[0]
    lower = sampling_batch(config, machine, task.vocabulary, setting, batch_size)
    batches = -(-(num_samples or config.evaluation.num_samples) // batch_size)
    return _plan(config, machine, lower, program=f"sampling {setting.name}", batch_size=batch_size, fsdp=1,
                 steps=batches, notes=[*task.notes], trips=setting.num_sampling_steps)  # fmt: skip


def _plan(
    config: Config, machine: Machine, lower: Callable, *, program: str, batch_size: int, fsdp: int,
    steps: int | None, notes: list[str], trips: int | None = None,
) -> Plan:  # fmt: skip
    lowered = lower()
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except Exception as error:
        used = over_memory(str(error))
        if used is None:
            raise
        return Plan(machine.name, len(machine.devices), program, batch_size, 0.0, 0.0, 0.0, used, 0, used,
                    machine.memory, False, time.monotonic() - start, 0.0, None, fsdp, steps, None,
                    (*notes, "the compiler gave up: at least this much memory is needed, and nothing else is known"),
                    tuple(ways_to_fit(config, machine, fsdp, program)))  # fmt: skip
    seconds = time.monotonic() - start
    memory, cost = compiled.memory_analysis(), program_cost(compiled, machine.rates, trips)
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    fits = peak <= machine.memory
    return Plan(
        topology=machine.name,
        chips=len(machine.devices),
        program=program,
        batch_size=batch_size,
        flops_per_chip=cost.flops,
        bytes_accessed_per_chip=cost.bytes,
        collective_bytes_per_chip=cost.collective_bytes,
        peak_bytes_per_chip=peak,
        argument_bytes_per_chip=memory.argument_size_in_bytes,
        temporary_bytes_per_chip=memory.temp_size_in_bytes,
        chip_memory_bytes=machine.memory,
        fits=fits,
        compile_seconds=seconds,
        step_seconds_estimate=cost.seconds,
        collective_seconds_estimate=cost.collective_bytes / machine.links if machine.links else None,
        fsdp=fsdp,
        total_steps=steps,
        chip_hours_estimate=steps * cost.seconds * len(machine.devices) / 3600 if steps else None,
        notes=tuple(notes),
        advice=() if fits else tuple(ways_to_fit(config, machine, fsdp, program)),
    )


def over_memory(message: str) -> int | None:
    """Bytes that a program needs at least, from the compiler's refusal; None for other errors."""
    found = re.search(r"required for HLO temporaries \(([\d.]+)([KMG])\) exceeds|Used ([\d.]+)([KMG]) of", message)
    if found is None:
        return None
    size, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(size) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])


def ways_to_fit(config: Config, machine: Machine, fsdp: int, program: str) -> list[str]:
    """Settings that take less memory, the cheapest first."""
    devices = len(machine.devices)
    if program != "training step":
        return ["a smaller --batch-size"]
    ways = []
    if config.training.remat != "full":
        kept = "" if config.training.remat == "dots" or machine.platform != "cpu" else "remat=dots, then "
        ways.append(
            f"-s {kept}remat=full (recomputes each block in the backward pass: about a third more arithmetic)"
        )
    if fsdp < devices:
        ways.append(f"-s fsdp={devices} (weights, average and optimiser state cut over all devices)")
    half = config.global_batch // 2
    if half and half % devices == 0:
        accumulate = 2 * config.optimization.grad_accum_steps
        ways.append(f"-s batch_size={half} -s grad_accum_steps={accumulate} (the same step in smaller parts)")
    return ways or ["a larger slice: a device has a single example already"]
