"""The cost of a compiled program with loops counted in full; XLA's cost analysis counts the body of a loop once.

The same analysis gives the cost of each instruction of a loop's body (as a program of that one instruction); a custom
kernel carries its own estimate. These costs are added for all further trips of the loop.
"""

import json
import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from math import prod

from elfcli.errors import ElfError

FREE_OPCODES = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "copy-done",
}
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
    """Of one chip. seconds: for each instruction the longer of its arithmetic and its memory, nothing overlapped."""

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
    """Arithmetic operations and bytes of memory traffic per second of a chip."""

    flops: float
    bytes: float

    def cost(self, flops: float, size: float) -> Cost:
        return Cost(flops, size, max(flops / self.flops, size / self.bytes))


@dataclass(frozen=True)
class Instruction:
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
        """The computation that an attribute such as `body` names."""
        found = re.search(rf"{name}=(%[^\s,]+)", self.attributes)
        assert found is not None, self
        return found[1]


@dataclass(frozen=True)
class HloModule:
    computations: dict[str, dict[str, Instruction]]
    texts: dict[str, str]
    entry: str


def program_cost(compiled, rates: Rates, trips: int | None = None) -> Cost:
    """The cost of a compiled program (`jax.stages.Compiled`) on one chip: XLA's analysis plus loops' further trips.

    trips: for loops whose number of trips is not in the program (a traced number of steps).
    """
    analysis = compiled.cost_analysis()
    once, often = counted_once(compiled.as_text(), rates, trips)
    beyond = often + once * -1
    return Cost(
        flops=analysis.get("flops", 0.0) + beyond.flops,
        bytes=analysis.get("bytes accessed", 0.0) + beyond.bytes,
        seconds=analysis.get("optimal_seconds", once.seconds) + beyond.seconds,
        collective_bytes=often.collective_bytes,
    )


def counted_once(text: str, rates: Rates, trips: int | None = None) -> tuple[Cost, Cost]:
    """(cost with each loop's body counted once, cost with all its trips) of an HLO module's text."""
    program = parse(text)

    @cache
    def cost_of(computation: str, instruction: Instruction) -> Cost:
        return instruction_cost(program, computation, instruction, rates)

    def total(name: str, times: Callable[[Instruction], int]) -> Cost:
        cost = Cost()
        for instruction in program.computations[name].values():
            if instruction.opcode == "while":
                cost += total(instruction.attribute("body"), times) * times(instruction)
            elif instruction.opcode in ("call", "conditional"):
                branches = [total(called, times) for called in instruction.called]
                cost += max(branches, key=lambda branch: branch.seconds, default=Cost())
            elif instruction.opcode not in FREE_OPCODES:
                cost += cost_of(name, instruction)
        return cost

    def trips_of(instruction: Instruction) -> int:
        found = known_trips(program, instruction) or trips
        if found is None:
            raise ElfError(f"{instruction.name}: how often this loop runs is not in the compiled program")
        return found

    return total(program.entry, lambda loop: 1), total(program.entry, trips_of)


def known_trips(program: HloModule, loop: Instruction) -> int | None:
    """The trips of a loop: XLA's note, or the only constant that its condition compares the counter with."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    text = program.texts[loop.attribute("condition")]
    limits = re.findall(r"= s32\[\]\S* constant\((\d+)\)", text)
    return int(limits[0]) if len(limits) == 1 and "direction=LT" in text else None


def kernel_cost(instruction: Instruction, rates: Rates) -> Cost | None:
    """The estimate that a custom kernel carries; None for any other instruction."""
    found = re.search(r'"cost_estimate":(\{[^}]*\})', instruction.attributes)
    if instruction.opcode != "custom-call" or found is None:
        return None
    estimate = json.loads(found[1])
    return rates.cost(float(estimate.get("flops", 0)), float(estimate.get("bytes_accessed", 0)))


def instruction_cost(program: HloModule, computation: str, instruction: Instruction, rates: Rates) -> Cost:
    """XLA's cost of one instruction, as a program that holds nothing else."""
    import jax
    from jax._src.lib import _jax as xla  # XLA's analysis of a parsed program has no public name
    from jaxlib._hlo import hlo_module_from_text

    operands = [program.computations[computation][name] for name in instruction.operands]
    if kernel := kernel_cost(instruction, rates):
        return kernel
    if instruction.opcode.removesuffix("-start") in COLLECTIVES:
        sent = sum(array_bytes(operand.shape) for operand in operands)
        size = sent + array_bytes(instruction.shape)
        return Cost(0.0, size, size / rates.bytes, sent)
    if instruction.opcode.endswith(("-done", "-update")) or instruction.opcode == "custom-call":
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
    found = xla.hlo_module_cost_analysis(client, hlo_module_from_text(text))
    return rates.cost(found.get("flops", 0.0), found.get("bytes accessed", 0.0))


def callees(program: HloModule, instruction: Instruction) -> list[str]:
    """Every computation that an instruction needs, each after the computations that it calls itself."""
    found: list[str] = []

    def visit(name: str) -> None:
        if name not in found:
            for inner in program.computations[name].values():
                for called in inner.called:
                    visit(called)
            found.append(name)

    for name in instruction.called:
        visit(name)
    return found


def parse(text: str) -> HloModule:
    """The computations of an HLO module's text."""
    computations: dict[str, dict[str, Instruction]] = {}
    texts: dict[str, str] = {}
    entry, name, lines = "", "", []
    for line in re.sub(
        r" stack_frame_id=\d+", "", text
    ).splitlines():  # ids of tables that are not in a program of one instruction
        if line.endswith("{") and not line.startswith((" ", "HloModule")) and " -> " in line:
            name = line.removeprefix("ENTRY ").partition(" ")[0]
            entry = name if line.startswith("ENTRY") else entry
            lines, computations[name] = [line.removeprefix("ENTRY ")], {}
        elif name:
            lines.append(line)
            if line.startswith("}"):
                texts[name], name = "\n".join(lines), ""
            elif found := _instruction(line):
                computations[name][found.name] = found
    return HloModule(computations, texts, entry)


def _instruction(line: str) -> Instruction | None:
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
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at + 1
    return len(text)


def array_bytes(shape: str) -> float:
    """Bytes of all arrays in a shape's text, without padding."""
    arrays = _ARRAY.findall(shape)
    return sum(prod(map(int, filter(None, sizes.split(",")))) * BYTES.get(kind, 0.0) for kind, sizes in arrays)
