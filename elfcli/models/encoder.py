"""Frozen encoders: parameters and a function from tokens to latents.

A network is an encoder if its shape has `network`, `width`, `vocab_size`, `dtype` and `attention`, and if it takes ids
(B, S) and a mask (B, S, S).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from elfcli.models.layers import graphdef_of


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


def apply_network(shape: Any, params: Any, ids_BxS: Array, mask_BxSxS: Array) -> Array:
    """Return latents (B, S, E) of the network that a shape describes, float32."""
    network = nnx.merge(graphdef_of(shape.network, shape), params)
    return network(ids_BxS, mask_BxSxS).astype(jnp.float32)


@cache
def encode_with(shape: Any) -> Callable[..., Array]:
    """Return `apply_network` of a shape; equal shapes give the same object, so that programs with it are compiled
    once."""
    return partial(apply_network, shape)


def encoder_mask(cond_BxS: Array, valid_BxS: Array, drop_B: Array) -> Array:
    """Return (B, S, S) bool: condition rows attend to the condition's valid columns, other rows to all valid columns.

    Other rows do not attend to the condition in examples whose condition is dropped (drop_B).
    """
    row, column = cond_BxS[:, :, None], cond_BxS[:, None, :]
    mask_BxSxS = valid_BxS[:, None, :] & (~row | column)
    return mask_BxSxS & ~(drop_B[:, None, None] & ~row & column)
