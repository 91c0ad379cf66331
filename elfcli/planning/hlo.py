"""The cost of a compiled program with all trips of its loops. XLA's cost analysis counts the body of a loop once. The
cost of a loop's further trips is added up from its instructions. XLA analyses each as a program of that single
instruction; a custom kernel carries its own estimate."""

import json
import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from math import prod
from typing import Any

from elfcli.errors import ElfError
from elfcli.planning.gpu_calls import call_flops, ring_bytes

FREE_OPCODES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
                "copy-done"}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
         "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation|branch_computations|called_computations)"
    r"=\{?((?:%[^\s,}]+(?:, )?)+)"
)
_ARRAY = re.compile(r"([a-z]+\d*)(?:e\dm\d[a-z]*)?\[([\d,]*)\]")
_NOT_NEEDED = re.compile(r", (?:metadata|backend_config|control-predecessors|sharding|frontend_attributes)=.*")


@dataclass(frozen=True)
class Cost:
    """The cost on one chip. seconds: per instruction the longer of its arithmetic and its memory time, no overlap."""

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0
    collective_bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(value * times for value in astuple(self)))


@dataclass(frozen=True)
class Rates:
    """Arithmetic operations and bytes of memory traffic per second of a chip. float32, attention: operations per second
    of a GPU in float32 products and in fused attention; None for other chips."""

    flops: float
    bytes: float
    float32: float | None = None
    attention: float | None = None

    def cost(self, flops: float, size: float) -> Cost:
        """Return the cost of arithmetic operations and bytes of memory traffic at these rates."""
        return Cost(flops, size, max(flops / self.flops, size / self.bytes))


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation, parsed from its line."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def called(self) -> list[str]:
        """Names of the computations that this instruction calls."""
        return [name for group in _CALLED.findall(self.attributes) for name in group.split(", ") if name]

    def attribute(self, name: str) -> str:
        """Return the computation that an attribute such as `body` names."""
        match = re.search(rf"{name}=(%[^\s,]+)", self.attributes)
        assert match is not None, self
        return match[1]


@dataclass(frozen=True)
class HloModule:
    """A parsed program: instructions and text of each computation, and the name of the entry computation."""

    computations: dict[str, dict[str, Instruction]]
    texts: dict[str, str]
    entry: str


def program_cost(compiled: Any, rates: Rates, trips: float | None = None) -> Cost:
    """Return the cost of a `jax.stages.Compiled` on one chip: XLA's analysis plus loops' further trips. trips: for
    loops whose number of trips is not in the program (a traced number of steps)."""
    analysis = compiled.cost_analysis()
    once, often = counted_once(compiled.as_text(), rates, trips)
    if rates.float32:  # XLA's analysis does not know the libraries of GPUs
        return often
    beyond, seconds = often + once * -1, analysis.get("optimal_seconds", 0.0)
    return Cost(
        flops=analysis.get("flops", 0.0) + beyond.flops,
        bytes=analysis.get("bytes accessed", 0.0) + beyond.bytes,
        # Where libtpu has no estimate, as for some instructions of v6e, it counts -1 second.
        seconds=(seconds if seconds > 0 else once.seconds) + beyond.seconds,
        collective_bytes=often.collective_bytes,
    )


def counted_once(text: str, rates: Rates, trips: float | None = None) -> tuple[Cost, Cost]:
    """Return (cost with each loop's body counted once, cost with all its trips) of an HLO module's text."""
    program = parse(text)

    @cache
    def cost_of(computation: str, instruction: Instruction) -> Cost:
        return instruction_cost(program, computation, instruction, rates)

    def total(name: str, times: Callable[[Instruction], float]) -> Cost:
        cost = Cost()
        for instruction in program.computations[name].values():
            if instruction.opcode == "while":
                cost += total(instruction.attribute("body"), times) * times(instruction)
            elif instruction.opcode in ("call", "conditional", "async-start"):
                branches = [total(called, times) for called in instruction.called]
                cost += max(branches, key=lambda branch: branch.seconds, default=Cost())
            elif instruction.opcode not in FREE_OPCODES:
                cost += cost_of(name, instruction)
        return cost

    def trips_of(instruction: Instruction) -> float:
        if (count := known_trips(program, instruction) or trips) is None:
            raise ElfError(f"{instruction.name}: the compiled program does not contain the trip count of this loop")
        return count

    return total(program.entry, lambda loop: 1), total(program.entry, trips_of)


def known_trips(program: HloModule, loop: Instruction) -> int | None:
    """Return the trips of a loop: XLA's note, or the only constant that its condition compares the counter with."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    text = program.texts[loop.attribute("condition")]
    limits = re.findall(r"= s32\[\]\S* constant\((\d+)\)", text)
    return int(limits[0]) if len(limits) == 1 and "direction=LT" in text else None


def instruction_cost(program: HloModule, computation: str, instruction: Instruction, rates: Rates) -> Cost:
    """Return XLA's cost of one instruction, as a program of that single instruction; of a kernel its own estimate."""
    import jax
    from jax._src.lib import _jax as xla  # XLA's analysis of a parsed program has no public name
    from jaxlib._hlo import hlo_module_from_text

    operands = [program.computations[computation][name] for name in instruction.operands]
    if instruction.opcode == "custom-call":
        return kernel_cost(instruction, [operand.shape for operand in operands], rates)
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in COLLECTIVES:
        own = sum(array_bytes(operand.shape) for operand in operands)
        sent = ring_bytes(opcode, instruction.attributes, own) if rates.float32 else own
        size = own + array_bytes(instruction.shape)
        return Cost(0.0, size, size / rates.bytes, sent)
    if instruction.opcode.endswith(("-done", "-update")):
        return Cost()
    parameters = "\n".join(f"  %p{i} = {operand.shape} parameter({i})" for i, operand in enumerate(operands))
    names = ", ".join(f"%p{i}" for i in range(len(operands)))
    attributes = _NOT_NEEDED.sub("", instruction.attributes)
    called = "\n\n".join(program.texts[name] for name in callees(program, instruction))
    text = (
        f"HloModule one\n\n{called}\n\nENTRY %e {{\n{parameters}\n"
        f"  ROOT %r = {instruction.shape} {instruction.opcode}({names}){attributes}\n}}\n"
    )
    client = jax.local_devices(backend="cpu")[0].client
    analysis = xla.hlo_module_cost_analysis(client, hlo_module_from_text(text))
    return rates.cost(analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0))


def kernel_cost(instruction: Instruction, operands: list[str], rates: Rates) -> Cost:
    """Return the cost of a kernel: its own estimate, or that of a call of cuBLAS or cuDNN by its shapes."""
    if match := re.search(r'"cost_estimate":(\{[^}]*\})', instruction.attributes):
        estimate = json.loads(match[1])
        return rates.cost(float(estimate.get("flops", 0)), float(estimate.get("bytes_accessed", 0)))
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    if target is None or rates.float32 is None or rates.attention is None:
        return Cost()
    flops = call_flops(target[1], instruction.attributes, instruction.shape, operands)
    results = re.sub(r"[su]8\[\d*\]", "", instruction.shape)  # without workspaces
    size = sum(map(array_bytes, operands)) + array_bytes(results)
    speed = rates.float32 if operands and operands[0].startswith("f32") else rates.flops
    speed = rates.attention if "fmha" in target[1] else speed
    return Cost(flops, size, max(flops / speed, size / rates.bytes))


def callees(program: HloModule, instruction: Instruction) -> list[str]:
    """Return every computation that an instruction needs, each after the computations that it calls itself."""
    names: dict[str, None] = {}
    for name in instruction.called:
        for inner in program.computations[name].values():
            names |= dict.fromkeys(callees(program, inner))
        names[name] = None
    return list(names)


def parse(text: str) -> HloModule:
    """Return the computations of an HLO module's text."""
    computations: dict[str, dict[str, Instruction]] = {}
    texts: dict[str, str] = {}
    entry, name, lines = "", "", []
    text = re.sub(r" stack_frame_id=\d+", "", text)  # ids of tables that a program of one instruction does not have
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")) and " -> " in line:
            name = line.removeprefix("ENTRY ").partition(" ")[0]
            entry = name if line.startswith("ENTRY") else entry
            lines, computations[name] = [line.removeprefix("ENTRY ")], {}
        elif name:
            lines.append(line)
            if line.startswith("}"):
                texts[name], name = "\n".join(lines), ""
            elif instruction := _instruction(line):
                computations[name][instruction.name] = instruction
    return HloModule(computations, texts, entry)


def _instruction(line: str) -> Instruction | None:
    """Return the instruction of a line, None for a line without one."""
    head, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    if not rest:
        return None
    rest = re.sub(r"/\*.*?\*/", "", rest)
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    operands = tuple(re.findall(r"%[^\s,()]+", rest[len(opcode) : close]))
    return Instruction(head, shape, opcode, operands, rest[close:])


def _closing(text: str, start: int) -> int:
    """Return the index after the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at + 1
    return len(text)


def array_bytes(shape: str) -> float:
    """Return the bytes of all arrays in a shape's text, without padding."""
    arrays = _ARRAY.findall(shape)
    return sum(prod(map(int, filter(None, sizes.split(",")))) * BYTES.get(kind, 0.0) for kind, sizes in arrays)
