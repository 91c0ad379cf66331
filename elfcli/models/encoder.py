"""Frozen encoders: parameters and a function from tokens to latents."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from elfcli.models.layers import graphdef_of
from elfcli.models.t5 import T5Encoder, T5Shape


@dataclass(frozen=True)
class Encoder:
    """`apply(params, ids (B, S), mask (B, S, S)) -> latents (B, S, dim)`, float32, before normalisation."""

    params: Any
    apply: Callable
    dim: int
    vocab_size: int  # ids are below it


def apply_table(table, ids_BxS, mask_BxSxS):
    """Latents (B, S, E) of a frozen token table (V, E), which needs no mask."""
    return table[ids_BxS]


def apply_t5(shape: T5Shape, params, ids_BxS, mask_BxSxS):
    """Latents (B, S, E) of a T5 encoder."""
    return nnx.merge(graphdef_of(T5Encoder, shape), params)(ids_BxS, mask_BxSxS)


@cache
def t5_encode(shape: T5Shape) -> Callable[..., jax.Array]:
    """Return `apply_t5` of a shape; equal shapes give the same object, so that programs with it are compiled once."""
    return partial(apply_t5, shape)


def encoder_mask(cond_BxS, valid_BxS, drop_B):
    """(B, S, S) bool, rows attend to columns: condition rows to the condition, other rows to all valid columns.

    In an example whose condition is dropped (drop_B), other rows do not attend to the condition.
    """
    row, column = cond_BxS[:, :, None], cond_BxS[:, None, :]
    mask_BxSxS = jnp.where(row, column, valid_BxS[:, None, :])
    return mask_BxSxS & ~(drop_B[:, None, None] & ~row & column)
