"""A mesh of devices with two axes, and how arrays are sharded over it. Every device computes its own examples. The
state (weights, average, optimizer) is replicated along the axis `data` and sharded along `fsdp`, where each layer's
weights are gathered when they are needed."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.errors import InputError

EXAMPLES = ("data", "fsdp")
STATE_BYTES = 16  # per weight, float32: the weight, its average, optimizer state; without gradients


def make_mesh(fsdp: int | None = 1, num_params: int = 0, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh (data, fsdp) of all devices of all processes, those of a process next to each other. fsdp: devices
    that share a copy of the state, None: `needed_fsdp`. Raise InputError if it does not divide the number of
    devices."""
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if fsdp is None:
        fsdp = needed_fsdp(num_params, len(devices), device_memory(devices[0]))
    if len(devices) % fsdp:
        raise InputError(f"fsdp {fsdp} does not divide the {len(devices)} device(s)")
    return Mesh(np.asarray(devices).reshape(-1, fsdp), EXAMPLES)


def needed_fsdp(num_params: int, num_devices: int, memory: int | None) -> int:
    """Return the smallest divisor of `num_devices` at which the state takes at most a third of a device's memory."""
    if memory is None:
        return 1
    divisors = [count for count in range(1, num_devices + 1) if num_devices % count == 0]
    return next((count for count in divisors if STATE_BYTES * num_params / count <= memory / 3), num_devices)


def device_memory(device: jax.Device) -> int | None:
    """Return the bytes of a device's memory, None if the device does not report them (CPUs)."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # `elf plan` describes devices that do not exist
        return None


def jit_on_mesh(function: Callable[..., Any]) -> Any:
    """Jit `function(statics, *arrays)` with hashable statics, traced under `statics.mesh`.

    Fused attention kernels need that mesh: without it, XLA cannot divide a program with them among several devices.
    """

    @partial(jax.jit, static_argnums=0)
    @wraps(function)
    def traced(statics: Any, *arrays: Any) -> Any:
        with jax.sharding.use_abstract_mesh(statics.mesh.abstract_mesh):
            return function(statics, *arrays)

    return traced


def everywhere(statics: Any, arrays: Any) -> Any:
    """Return the arrays whole on all devices, so that every process can read them. statics: of `jit_on_mesh`."""
    return jax.lax.with_sharding_constraint(arrays, NamedSharding(statics.mesh, PartitionSpec()))


def process_rows(batch_size: int) -> slice:
    """Return the rows of every global batch that this process reads."""
    each = batch_size // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def by_example(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of arrays along their axis of examples, over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, EXAMPLES))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Return global arrays (A, B, S), sharded over examples, from this process's rows (A, B / processes, S)."""
    sharding = by_example(mesh, axis=1)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Return a global array of values that every process holds. (`device_put` would compare them first.)"""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Return the tree replicated on every device. Every process must hold its values."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the sharding of each leaf of a state: its largest axis that `fsdp` divides is sharded, else it is
    replicated. The axis of layers is never sharded, because `scan_blocks` iterates over it."""
    parts = mesh.shape["fsdp"]

    def sharding(path: tuple, leaf: Any) -> NamedSharding:
        stacked = any(getattr(key, "key", None) == "blocks" for key in path)
        axes = [axis for axis in range(int(stacked), leaf.ndim) if leaf.shape[axis] % parts == 0 and parts > 1]
        if not axes:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def round_up_to_devices(batch_size: int) -> int:
    """Return the batch size, rounded up to a multiple of the number of devices."""
    return -(-batch_size // jax.device_count()) * jax.device_count()


def by_row(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Return the array (B, ...), which every process holds, sharded by its rows over all devices."""
    return put(array, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))


def on_devices(tree: Any) -> Any:
    """Return the arrays replicated on all devices, without copying those that are already there."""
    everywhere, devices = NamedSharding(make_mesh(), PartitionSpec()), set(jax.devices())

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices:
            return leaf
        return put(np.asarray(leaf), everywhere)

    return jax.tree.map(place, tree)
