"""Layers as GPUs need them: attention in cuDNN's kernel, which keeps the logits (T, T) of a head out of memory, and
what lets XLA fuse the rest.

cuDNN supports heads up to MAX_HEAD whose size is a multiple of 8: others are padded with zeros, which is exact.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec

MULTIPLE, MAX_HEAD = 8, 128
FORWARD = "dot_product_attention_fwd_wrapper"  # JAX's name of cuDNN's forward kernel


def fits_cudnn(head_size: int) -> bool:
    """Return whether cuDNN's kernel takes heads of this size, if they are padded."""
    return head_size <= MAX_HEAD


def fused_attention(
    q_BxTxNxD: Array, k_BxTxNxD: Array, v_BxTxNxD: Array, mask: Array | None, bias: Array | None, scale: float
) -> Array:
    """Return attention in the inputs' dtype, bfloat16. mask, bias: as in `layers.attention`."""
    T, S, D = q_BxTxNxD.shape[1], k_BxTxNxD.shape[1], q_BxTxNxD.shape[-1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -D % MULTIPLE))) for x in (q_BxTxNxD, k_BxTxNxD, v_BxTxNxD))
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], T, S))
    return jax.nn.dot_product_attention(q, k, v, bias, mask, scale=scale, implementation="cudnn")[..., :D]


def rotated(x_BxTxNxD: Array, cos: Array, sin: Array) -> Array:
    """Return `layers.apply_rope` without a concatenation, so that XLA fuses it and its derivative with what is around:
    halves are exchanged by reversing an axis of two."""
    x32 = x_BxTxNxD.astype(jnp.float32)
    exchanged = jnp.flip(x32.reshape(*x32.shape[:-1], 2, -1), -2).reshape(x32.shape)
    cos, sin = jnp.concatenate([cos, cos], -1)[..., None, :], jnp.concatenate([-sin, sin], -1)[..., None, :]
    return (x32 * cos + exchanged * sin).astype(x_BxTxNxD.dtype)


def bias_and_mask(bias_1xNxTxT: Array, mask: Array, kernel: str) -> tuple[Array, Array | None]:
    """Return a bias of the logits and a mask (True: attended) as the kernel of `layers.attention` takes them: cuDNN
    takes their combination (B, N, T, T), which a loop over layers should not make each time."""
    if kernel == "cudnn":
        return jnp.where(mask, bias_1xNxTxT, jnp.asarray(-(2.0**41), bias_1xNxTxT.dtype)), None
    return bias_1xNxTxT, mask


def is_attention(primitive: Any, *arrays: Any, **parameters: Any) -> bool:
    """Tell rematerialization to save the results of cuDNN's kernel, which JAX does not name."""
    return primitive.name == FORWARD


def split_output(
    linear: Any, x: Array, widths: Sequence[int], separate: bool, weights: dict[str, Array] | None = None
) -> list[Array]:
    """Return the layer's output split into arrays of these widths. separate: each is a product of its own. weights:
    kernel and bias that replace the layer's parameters.

    The derivative of a split is a concatenation, which XLA does not fuse with sums over examples on GPUs.
    """
    weights = weights_of(linear, separate) if weights is None else weights
    ends = list(accumulate(widths))[:-1]
    if not separate:
        return jnp.split(linear(x, **weights), ends, axis=-1)
    parts = (jnp.split(weights[name], ends, axis=-1) for name in ("kernel", "bias"))
    return [linear(x, *part) for part in zip(*parts, strict=True)]


def weights_of(linear: Any, whole: bool) -> dict[str, Array]:
    """Return kernel and bias. whole: gathered on each device, so that reordering and splitting them needs no further
    communication."""
    weights = nnx.to_pure_dict(nnx.state(linear))
    mesh = jax.sharding.get_abstract_mesh()
    if not whole or mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual:
        return weights
    return jax.lax.with_sharding_constraint(weights, PartitionSpec())


@jax.custom_vjp
def float32_logits(x: Array, kernel_IxO: Array) -> Array:
    """Return x (..., I) @ kernel (I, O), float32, of factors in x's dtype. In the backward pass too all factors have
    that dtype; JAX's default derivative would multiply float32 matrices, which takes GPUs several times as long."""
    return jnp.matmul(x, kernel_IxO.astype(x.dtype), preferred_element_type=jnp.float32)


def _logits_forward(x: Array, kernel_IxO: Array) -> tuple[Array, tuple[Array, Array]]:
    return float32_logits(x, kernel_IxO), (x, kernel_IxO)


def _logits_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel_IxO = saved
    g = g.astype(x.dtype)
    x_NxI, g_NxO = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    return g @ kernel_IxO.astype(x.dtype).T, jnp.matmul(x_NxI.T, g_NxO, preferred_element_type=jnp.float32)


float32_logits.defvjp(_logits_forward, _logits_backward)


def token_entropy(logits_BxSxV: Array, ids_BxS: Array, select: bool) -> Array:
    """Return -log softmax(logits) at the ids, (B, S). select: compare all ids, whose derivative XLA fuses on GPUs; that
    of an indexed read is a scatter."""
    if not select:
        return optax.softmax_cross_entropy_with_integer_labels(logits_BxSxV, ids_BxS)
    chosen = jnp.arange(logits_BxSxV.shape[-1]) == ids_BxS[..., None]
    return jax.nn.logsumexp(logits_BxSxV, axis=-1) - jnp.where(chosen, logits_BxSxV, 0).sum(axis=-1)


def in_row_order(x_BxTxH: Array, enabled: bool) -> Array:
    """Return the array; if enabled, its axes are in memory in their order. A loop keeps that order; else XLA may
    choose another for the activations of all blocks, and transpose them around products."""

    def ordered(x_BxTxH: Array) -> Array:
        return with_layout_constraint(x_BxTxH, Layout((0, 1, 2)))

    mesh = jax.sharding.get_abstract_mesh()
    if not enabled or (not mesh.empty and len(x_BxTxH) % mesh.size):
        return x_BxTxH
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual:
        return ordered(x_BxTxH)
    examples = PartitionSpec(mesh.axis_names)  # otherwise XLA would gather the examples of all devices
    return jax.shard_map(ordered, in_specs=examples, out_specs=examples, check_vma=False)(x_BxTxH)
