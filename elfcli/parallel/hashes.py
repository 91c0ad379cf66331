"""Digests of arrays and trees."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import xxhash


def digest(rows: Sequence) -> str:
    """A hash of texts or rows of token ids, by which processes compare their input."""
    plain = repr([row if isinstance(row, str) else list(map(int, row)) for row in rows])
    return xxhash.xxh3_64(plain.encode()).hexdigest()


def tree_hash(tree: Any) -> str:
    """A hash of the arrays of a tree and their paths."""
    found = xxhash.xxh3_128()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()
