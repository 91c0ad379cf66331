"""Frozen encoders: parameters and a function from tokens to latents."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from elfcli.models.layers import graphdef_of
from elfcli.models.t5 import T5Encoder, T5Shape


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder. `apply(params, ids (B, S), mask (B, S, S))` returns latents (B, S, dim), not normalized."""

    params: Any
    apply: Callable[[Any, Array, Array], Array]
    dim: int
    vocab_size: int


def apply_table(table_VxE: Array, ids_BxS: Array, mask_BxSxS: Array) -> Array:
    """Return latents (B, S, E) of a frozen token table (V, E), which ignores the mask."""
    return table_VxE[ids_BxS]


def apply_t5(shape: T5Shape, params: Any, ids_BxS: Array, mask_BxSxS: Array) -> Array:
    """Return latents (B, S, E) of a T5 encoder."""
    return nnx.merge(graphdef_of(T5Encoder, shape), params)(ids_BxS, mask_BxSxS)


@cache
def t5_encode(shape: T5Shape) -> Callable[..., Array]:
    """Return `apply_t5` of a shape; equal shapes give the same object, so that programs with it are compiled once."""
    return partial(apply_t5, shape)


def encoder_mask(cond_BxS: Array, valid_BxS: Array, drop_B: Array) -> Array:
    """Return (B, S, S) bool: condition rows attend to condition columns, other rows to all valid columns.

    Other rows do not attend to the condition in examples whose condition is dropped (drop_B).
    """
    row, column = cond_BxS[:, :, None], cond_BxS[:, None, :]
    mask_BxSxS = jnp.where(row, column, valid_BxS[:, None, :])
    return mask_BxSxS & ~(drop_B[:, None, None] & ~row & column)
