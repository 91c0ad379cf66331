"""What a frozen encoder is: parameters and a function from tokens to latents."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    vocab_size: int  # ids that it can take


def apply_table(table, ids_BxS, mask_BxSxS):
    return table[ids_BxS]


def apply_t5(shape: T5Shape, params, ids_BxS, mask_BxSxS):
    return nnx.merge(graphdef_of(T5Encoder, shape), params)(ids_BxS, mask_BxSxS)


def encoder_mask(cond_BxS, valid_BxS, drop_B):
    """(B, S, S) bool, rows attend to columns: condition rows to the condition, the others to all valid columns.

    Where the condition is dropped, rows outside of it no longer see it.
    """
    row, column = cond_BxS[:, :, None], cond_BxS[:, None, :]
    mask_BxSxS = jnp.where(row, column, valid_BxS[:, None, :])
    return mask_BxSxS & ~(drop_B[:, None, None] & ~row & column)
