"""Softmax attention in one TPU kernel: the logits (T, T) of a head never leave the chip's fast memory.

Sequences are short (about a thousand tokens), so the kernel holds all keys and values of a head, and the softmax needs
no running maximum. Arrays are transposed, (D, T), as the preceding projection stores them, so that tokens fill the 128
lanes for any head size. The backward pass recomputes the weights from the saved log-sum-exp.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

MAX_BLOCK_LOGITS = 5 * 2**17  # 2.5 MiB in float32; a few arrays of this size fit into fast memory
LANES = 128
ELEMENTWISE = 5  # operations that XLA counts per logit of plain attention: scale, maximum, subtraction, sum, division


def fused_attention(q_BxTxNxD: Array, k_BxTxNxD: Array, v_BxTxNxD: Array, scale: float) -> Array:
    """Return attention of all tokens to all tokens in the inputs' dtype, with a float32 softmax.

    Under a mesh (`jax.set_mesh`), each device runs the kernel on its own examples.
    """

    def run(*arrays: Array) -> Array:
        return _back(_attention(scale, *map(_tokens_last, arrays)))

    return _each_device(run, (True, True, True))(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD)


def frozen_attention(
    q_BxTxNxD: Array, k_BxTxNxD: Array, v_BxTxNxD: Array, mask: Array, bias_1xNxTxT: Array, scale: float
) -> Array:
    """Return `fused_attention` with a bias of the logits and a mask (True: attended) broadcastable to (B, 1, T, T).

    It has no gradient, which the frozen encoder does not need.
    """
    B, T = q_BxTxNxD.shape[:2]

    def run(q: Array, k: Array, v: Array, mask_Bx1xTxT: Array, bias_1xNxTxT: Array) -> Array:
        inputs = [*map(_tokens_last, (q, k, v)), *(jnp.swapaxes(a, -1, -2) for a in (mask_Bx1xTxT, bias_1xNxTxT))]
        shapes = [jax.ShapeDtypeStruct(inputs[0].shape, q.dtype)]
        return _back(_call(partial(_frozen_kernel, scale=scale), "frozen_attention", inputs, shapes, 2)[0])

    mask_Bx1xTxT = jnp.broadcast_to(mask, (B, 1, T, T)).astype(jnp.int8)
    run_everywhere = _each_device(run, (True, True, True, True, False))
    return run_everywhere(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD, mask_Bx1xTxT, bias_1xNxTxT)


def _each_device(run: Callable[..., Array], by_example: tuple[bool, ...]) -> Callable[..., Array]:
    """Return `run` for every device, which gets its part of the arguments that are sharded over examples."""
    if _on_one_device():
        return run
    part = PartitionSpec(_mesh().axis_names)
    specs = tuple(part if sharded else PartitionSpec() for sharded in by_example)
    return jax.shard_map(run, in_specs=specs, out_specs=part, check_vma=False)


def _tokens_last(x_BxTxNxD: Array) -> Array:
    return jnp.transpose(x_BxTxNxD, (0, 2, 3, 1))


def _back(x_BxNxDxT: Array) -> Array:
    return jnp.transpose(x_BxNxDxT, (0, 3, 1, 2))


def fits_vmem(batch_size: int, length: int) -> bool:
    """Return whether the logits of a block of queries fit into fast memory and the devices divide the batch."""
    return length * LANES <= MAX_BLOCK_LOGITS and (_on_one_device() or batch_size % _mesh().size == 0)


def _mesh() -> Any:
    return jax.sharding.get_abstract_mesh()


def _on_one_device() -> bool:
    return _mesh().empty or _mesh().size == 1 or _mesh().are_all_axes_manual


def _query_blocks(length: int) -> list[slice]:
    """Return the fewest blocks that fit, of equal size except the last, each a multiple of the lanes."""
    most = min(MAX_BLOCK_LOGITS // length, 4 * LANES) // LANES * LANES
    size = -(-length // -(-length // most) // LANES) * LANES
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Return the product over axis `contract[0]` of a and `contract[1]` of b, accumulated in float32."""
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def _forward_kernel(q_ref: Any, k_ref: Any, v_ref: Any, o_ref: Any, lse_ref: Any, *, scale: float) -> None:
    k_DxT, v_DxT = k_ref[...], v_ref[...]
    for block in _query_blocks(k_DxT.shape[1]):
        logits_TxQ = _dot(k_DxT, q_ref[:, block], (0, 0)) * scale
        top_1xQ = jnp.max(logits_TxQ, axis=0, keepdims=True)
        weights_TxQ = jnp.exp(logits_TxQ - top_1xQ)
        total_1xQ = jnp.sum(weights_TxQ, axis=0, keepdims=True)
        out_DxQ = _dot(v_DxT, weights_TxQ.astype(v_DxT.dtype), (1, 0)) / total_1xQ
        o_ref[:, block] = out_DxQ.astype(o_ref.dtype)
        lse_ref[:, block] = top_1xQ + jnp.log(total_1xQ)


def _frozen_kernel(
    q_ref: Any, k_ref: Any, v_ref: Any, mask_ref: Any, bias_ref: Any, o_ref: Any, *, scale: float
) -> None:
    k_DxT, v_DxT = k_ref[...], v_ref[...]
    for block in _query_blocks(k_DxT.shape[1]):
        logits_TxQ = _dot(k_DxT, q_ref[:, block], (0, 0)) * scale + bias_ref[:, block].astype(jnp.float32)
        logits_TxQ = jnp.where(mask_ref[:, block].astype(jnp.int32) != 0, logits_TxQ, jnp.finfo(jnp.float32).min)
        weights_TxQ = jnp.exp(logits_TxQ - jnp.max(logits_TxQ, axis=0, keepdims=True))
        total_1xQ = jnp.sum(weights_TxQ, axis=0, keepdims=True)
        o_ref[:, block] = (_dot(v_DxT, weights_TxQ.astype(v_DxT.dtype), (1, 0)) / total_1xQ).astype(o_ref.dtype)


def _backward_kernel(*refs: Any, scale: float) -> None:
    q_ref, k_ref, v_ref, o_ref, lse_ref, do_ref, dq_ref, dk_ref, dv_ref = refs
    k_DxT, v_DxT = k_ref[...], v_ref[...]
    dk_DxT = dv_DxT = jnp.zeros(k_DxT.shape, jnp.float32)
    for block in _query_blocks(k_DxT.shape[1]):
        q_DxQ, do_DxQ = q_ref[:, block], do_ref[:, block]
        weights_TxQ = jnp.exp(_dot(k_DxT, q_DxQ, (0, 0)) * scale - lse_ref[:, block])
        dv_DxT += _dot(do_DxQ, weights_TxQ.astype(do_DxQ.dtype), (1, 1))
        dweights_TxQ = _dot(v_DxT, do_DxQ, (0, 0))
        shift_1xQ = jnp.sum(o_ref[:, block].astype(jnp.float32) * do_DxQ, axis=0, keepdims=True)
        dlogits_TxQ = (weights_TxQ * (dweights_TxQ - shift_1xQ) * scale).astype(q_DxQ.dtype)
        dq_ref[:, block] = _dot(k_DxT, dlogits_TxQ, (1, 0)).astype(dq_ref.dtype)
        dk_DxT += _dot(q_DxQ, dlogits_TxQ, (1, 1))
    dk_ref[...] = dk_DxT.astype(dk_ref.dtype)
    dv_ref[...] = dv_DxT.astype(dv_ref.dtype)


def _call(kernel: Callable, name: str, inputs: Sequence[Array], out_shapes: Sequence[Any], products: int) -> Any:
    """Run a kernel for every (example, head). products: number of products of size (T, T, D) in it."""
    B, N, D, T = inputs[0].shape

    def per_head(array: Any) -> pl.BlockSpec:  # an axis of one is shared: a mask by all heads, a bias by all examples
        examples, heads = array.shape[0] > 1, array.shape[1] > 1
        return pl.BlockSpec((None, None, *array.shape[2:]), lambda b, n: (b * examples, n * heads, 0, 0))

    size = sum(a.size * a.dtype.itemsize for a in (*inputs, *out_shapes))
    flops = B * N * T * T * (2 * D * products + ELEMENTWISE)
    work = pl.CostEstimate(flops=flops, bytes_accessed=size, transcendentals=B * N * T * T)
    return pl.pallas_call(
        kernel,
        grid=(B, N),
        in_specs=[per_head(a) for a in inputs],
        out_specs=[per_head(a) for a in out_shapes],
        out_shape=out_shapes,
        cost_estimate=work,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=32 * 2**20),
        name=name,
    )(*inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(scale: float, q_BxNxDxT: Array, k_BxNxDxT: Array, v_BxNxDxT: Array) -> Array:
    return _forward(scale, q_BxNxDxT, k_BxNxDxT, v_BxNxDxT)[0]


def _forward(scale: float, q_BxNxDxT: Array, k_BxNxDxT: Array, v_BxNxDxT: Array) -> tuple[Array, tuple[Array, ...]]:
    qkv = [q_BxNxDxT, k_BxNxDxT, v_BxNxDxT]
    B, N, _, T = q_BxNxDxT.shape
    shapes = [jax.ShapeDtypeStruct(q_BxNxDxT.shape, q_BxNxDxT.dtype), jax.ShapeDtypeStruct((B, N, 1, T), jnp.float32)]
    out, lse = _call(partial(_forward_kernel, scale=scale), "attention", qkv, shapes, 2)
    # Named, so that rematerialization can save them: recomputing the forward kernel would cost more time.
    out, lse = (checkpoint_name(a, "attention") for a in (out, lse))
    return out, (*qkv, out, lse)


def _backward(scale: float, saved: tuple[Array, ...], do_BxNxDxT: Array) -> tuple[Array, ...]:
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in saved[:3]]
    inputs = [*saved, do_BxNxDxT.astype(saved[0].dtype)]
    return tuple(_call(partial(_backward_kernel, scale=scale), "attention_backward", inputs, shapes, 5))


_attention.defvjp(_forward, _backward)
