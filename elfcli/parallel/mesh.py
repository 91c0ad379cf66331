"""Devices: a mesh of two axes, and what lies where on it.

Every device computes its own examples. Along `data` the state (weights, average, optimiser) is repeated, along `fsdp`
it is cut up, and gathered a layer at a time where it is needed.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import xxhash
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.errors import InputError

EXAMPLES = ("data", "fsdp")
STATE_BYTES = 16  # per weight: the weight, its average, and what the optimiser keeps, float32; gradients come on top


def make_mesh(fsdp: int | None = 1, num_params: int = 0, devices=None) -> Mesh:
    """All devices of all processes as (data, fsdp), those of a process next to each other.

    fsdp: devices that share one copy of the state. None: 1, or as many as it takes where a copy for `num_params`
    would fill more than a third of a device's memory. InputError where the devices cannot be divided so.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if fsdp is None:
        fsdp = needed_fsdp(num_params, len(devices), device_memory(devices[0]))
    if len(devices) % fsdp:
        raise InputError(f"fsdp {fsdp} does not divide the {len(devices)} device(s)")
    return Mesh(np.asarray(devices).reshape(-1, fsdp), EXAMPLES)


def needed_fsdp(num_params: int, num_devices: int, memory: int | None) -> int:
    """The least divisor of the devices at which the state takes at most a third of a device's memory (bytes)."""
    if memory is None:
        return 1
    divisors = [count for count in range(1, num_devices + 1) if num_devices % count == 0]
    return next((count for count in divisors if STATE_BYTES * num_params / count <= memory / 3), num_devices)


def device_memory(device) -> int | None:
    """Bytes of a device's memory, where it says so (accelerators)."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # a device that is only compiled for has none
        return None


def process_rows(batch_size: int) -> slice:
    """Rows of every global batch that this process reads."""
    each = batch_size // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def by_example(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Arrays cut along an axis of examples, a part for each device."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, EXAMPLES))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays (A, B, S), sharded over examples, from this process's rows (A, B / processes, S)."""
    sharding = by_example(mesh, axis=1)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array of values that every process holds; unlike device_put it does not compare them."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def replicate(tree, mesh: Mesh):
    """The same values on every device; every process must hold them."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def state_shardings(tree, mesh: Mesh):
    """Where each leaf of a state lies: cut along `fsdp` on its largest axis that can be, except the axis of layers
    (which the scan over layers walks along); repeated where no axis can be cut."""
    parts = mesh.shape["fsdp"]

    def sharding(path, leaf):
        stacked = any(getattr(key, "key", None) == "blocks" for key in path)
        axes = [axis for axis in range(int(stacked), leaf.ndim) if leaf.shape[axis] % parts == 0 and parts > 1]
        if not axes:
            return NamedSharding(mesh, PartitionSpec())
        cut = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * cut, "fsdp"))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def round_up_to_devices(batch_size: int) -> int:
    """The next batch size that all devices share evenly."""
    return -(-batch_size // jax.device_count()) * jax.device_count()


def digest(rows: Sequence) -> str:
    """A hash of texts or rows of token ids, by which processes compare what they were given."""
    plain = repr([row if isinstance(row, str) else list(map(int, row)) for row in rows])
    return xxhash.xxh3_64(plain.encode()).hexdigest()


def by_row(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Rows (B, ...), the same in every process, shared out over the devices."""
    return put(array, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))


def on_devices(tree: Any) -> Any:
    """Weights that every device holds; what lies on all of them already stays as it is."""
    everywhere, devices = NamedSharding(make_mesh(), PartitionSpec()), set(jax.devices())

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices:
            return leaf
        return put(np.asarray(leaf), everywhere)

    return jax.tree.map(place, tree)
