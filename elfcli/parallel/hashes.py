"""Digests of arrays and trees."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import xxhash


def digest(rows: Sequence) -> str:
    """Return a hash of texts or rows of token ids, by which processes compare their input."""
    plain = repr([row if isinstance(row, str) else list(map(int, row)) for row in rows])
    return xxhash.xxh3_64(plain.encode()).hexdigest()


def tree_hash(tree: Any) -> str:
    """Return a hash of a tree's arrays and their paths."""
    result = xxhash.xxh3_128()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        result.update(jax.tree_util.keystr(path).encode())
        result.update(np.asarray(leaf).tobytes())
    return result.hexdigest()
