"""Devices: the mesh, and global batches put together from each process's own rows."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return Mesh(np.asarray(jax.devices()), ("data",))


def process_rows(batch_size: int) -> slice:
    """Rows of every global batch that this process reads."""
    each = batch_size // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays (A, B, S), sharded over examples, from this process's rows (A, B / processes, S)."""
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def replicate(tree, mesh: Mesh):
    """The same values on every device; every process must hold them."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
