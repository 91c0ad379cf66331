"""The cost of what GPUs leave to libraries, read from an HLO module's text: products in cuBLAS, attention in cuDNN, and
collectives in NCCL."""

import json
import re
from collections import Counter
from math import prod

RING = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1.0,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
}
"""Bytes that each of n devices sends in a ring, as a multiple of its operand's."""


def call_flops(target: str, attributes: str, shape: str, operands: list[str]) -> float:
    """Return the arithmetic operations of a custom call, 0 if it is neither a product nor attention. shape, operands:
    the texts of its result and its operands, such as bf16[8,16]{1,0}."""
    if target.startswith("__cublas$"):
        numbers = config_of(attributes)["gemm_backend_config"]["dot_dimension_numbers"]
        sizes = sizes_of(operands[0])
        contracted = prod(sizes[int(axis)] for axis in numbers["lhs_contracting_dimensions"])
        return 2.0 * prod(sizes_of(shape)) * contracted
    if target.startswith("__cudnn$fmha"):
        logits = config_of(attributes)["cudnn_fmha_backend_config"]["intermediate_tensor_shape"]["dimensions"]
        # Backward, the logits and the weights' gradient are computed, and the gradients of queries, keys and values.
        products = 5 if "Backward" in target else 2
        return 2.0 * products * prod(map(int, logits)) * sizes_of(operands[0])[-1]
    return 0.0


def config_of(attributes: str) -> dict:
    """Return the `backend_config` among an instruction's attributes."""
    start = attributes.index("backend_config=") + len("backend_config=")
    return json.JSONDecoder().raw_decode(attributes, start)[0]


def sizes_of(shape: str) -> list[int]:
    """Return the sizes of the first array in a shape's text."""
    match = re.search(r"\[([\d,]*)\]", shape)
    return [int(size) for size in match[1].split(",") if size] if match else []


def ring_bytes(opcode: str, attributes: str, size: float) -> float:
    """Return the bytes that a device sends in a collective on `size` bytes of operands."""
    devices = group_size(attributes)
    return size * (RING[opcode](devices) if opcode in RING and devices else 1.0)


def group_size(attributes: str) -> int | None:
    """Return the number of devices of a group in a collective, None if its text does not say."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if short := re.search(r"replica_groups=\[(?:\d+,)*(\d+)\]<=", attributes):
        return int(short[1])
    groups = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return len(groups[1].split(",")) if groups else None


def collectives(text: str) -> str:
    """Return how many collectives of each kind a program contains, and how many run beside arithmetic."""
    counts = Counter(re.findall(rf" ({'|'.join(RING)})(?:-start)?\(", text))
    asynchronous = len(re.findall(rf" (?:{'|'.join(RING)}|async)-start\(", text))
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
    return f"collectives in the program: {listed}; {asynchronous} asynchronous"
