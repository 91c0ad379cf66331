"""Work over all devices of all processes: rows shared out, weights everywhere."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import xxhash
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.training.mesh import make_mesh


def rounded(batch_size: int) -> int:
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


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array of values that every process holds; unlike device_put it does not compare them."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
