"""Work over all devices of all processes: rows shared out, weights everywhere."""

import jax
import numpy as np
from jax.sharding import NamedSharding


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array of values that every process holds; unlike device_put it does not compare them."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
