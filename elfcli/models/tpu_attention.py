"""Softmax attention in one TPU kernel: the logits (T, T) of a head never leave the chip's fast memory.

Sequences here are short (about a thousand tokens), so the kernel holds all keys and values of a head, and softmax
needs no running maximum. Arrays are transposed, (D, T), as the projection before stores them: tokens fill the 128
lanes whatever the head size. The backward pass recomputes the weights from the saved log-sum-exp.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

MAX_BLOCK_LOGITS = (
    5 * 2**17
)  # of a block of queries: float32 arrays of 2.5 MiB each, of which a few fit into fast memory
LANES = 128
ELEMENTWISE = 5  # scale, maximum, subtraction, sum, division: what XLA counts per logit in plain attention
Array = jax.Array


def fused_attention(q_BxTxNxD: Array, k_BxTxNxD: Array, v_BxTxNxD: Array, scale: float) -> Array:
    """Attention of all tokens to all tokens, in the inputs' dtype with float32 softmax.

    Under a mesh (`jax.set_mesh`) each device runs the kernel on its own examples.
    """

    def run(*arrays):
        return _back(_attention(scale, *map(_tokens_last, arrays)))

    return _each_device(run, (True, True, True))(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD)


def frozen_attention(
    q_BxTxNxD: Array, k_BxTxNxD: Array, v_BxTxNxD: Array, mask: Array, bias_1xNxTxT: Array, scale: float
) -> Array:
    """`fused_attention` with a bias of the logits and a mask (True where attended) broadcastable to (B, 1, T, T).

    It has no gradient: only the frozen encoder needs it.
    """
    B, T = q_BxTxNxD.shape[:2]

    def run(q, k, v, mask_Bx1xTxT, bias):
        inputs = [*map(_tokens_last, (q, k, v)), *(jnp.swapaxes(a, -1, -2) for a in (mask_Bx1xTxT, bias))]
        shapes = [jax.ShapeDtypeStruct(inputs[0].shape, q.dtype)]
        return _back(_call(partial(_frozen_kernel, scale=scale), "frozen_attention", inputs, shapes, 2)[0])

    mask_Bx1xTxT = jnp.broadcast_to(mask, (B, 1, T, T)).astype(jnp.int8)
    everything = q_BxTxNxD, k_BxTxNxD, v_BxTxNxD, mask_Bx1xTxT, bias_1xNxTxT
    return _each_device(run, (True, True, True, True, False))(*everything)


def _each_device(run, by_example: tuple[bool, ...]):
    """`run` on every device, with the device's own part of those arguments that are sharded over examples."""
    if _on_one_device():
        return run
    own, whole = PartitionSpec(_mesh().axis_names), PartitionSpec()
    specs = tuple(own if cut else whole for cut in by_example)
    return jax.shard_map(run, in_specs=specs, out_specs=own, check_vma=False)


def _tokens_last(x_BxTxNxD):
    return jnp.transpose(x_BxTxNxD, (0, 2, 3, 1))


def _back(x_BxNxDxT):
    return jnp.transpose(x_BxNxDxT, (0, 3, 1, 2))


def fits_vmem(batch_size: int, length: int) -> bool:
    """Whether the logits of a block of queries fit into fast memory, and the devices divide the batch."""
    return length * LANES <= MAX_BLOCK_LOGITS and (_on_one_device() or batch_size % _mesh().size == 0)


def _mesh():
    return jax.sharding.get_abstract_mesh()


def _on_one_device() -> bool:
    return _mesh().empty or _mesh().size == 1 or _mesh().are_all_axes_manual


def _query_blocks(length: int) -> list[slice]:
    """The fewest blocks that fit, of equal size except the last, each a multiple of the lanes."""
    most = min(MAX_BLOCK_LOGITS // length, 4 * LANES) // LANES * LANES
    size = -(-length // -(-length // most) // LANES) * LANES
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def _dot(a, b, contract: tuple[int, int]):
    """Product over axis `contract[0]` of a and `contract[1]` of b, accumulated in float32."""
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def _forward_kernel(q_ref, k_ref, v_ref, o_ref, lse_ref, *, scale: float):
    k_DxT, v_DxT = k_ref[...], v_ref[...]
    for block in _query_blocks(k_DxT.shape[1]):
        logits_TxQ = _dot(k_DxT, q_ref[:, block], (0, 0)) * scale
        top_1xQ = jnp.max(logits_TxQ, axis=0, keepdims=True)
        weights_TxQ = jnp.exp(logits_TxQ - top_1xQ)
        total_1xQ = jnp.sum(weights_TxQ, axis=0, keepdims=True)
        out_DxQ = _dot(v_DxT, weights_TxQ.astype(v_DxT.dtype), (1, 0)) / total_1xQ
        o_ref[:, block] = out_DxQ.astype(o_ref.dtype)
        lse_ref[:, block] = top_1xQ + jnp.log(total_1xQ)


def _frozen_kernel(q_ref, k_ref, v_ref, mask_ref, bias_ref, o_ref, *, scale: float):
    k_DxT, v_DxT = k_ref[...], v_ref[...]
    for block in _query_blocks(k_DxT.shape[1]):
        logits_TxQ = _dot(k_DxT, q_ref[:, block], (0, 0)) * scale + bias_ref[:, block].astype(jnp.float32)
        logits_TxQ = jnp.where(mask_ref[:, block].astype(jnp.int32) != 0, logits_TxQ, jnp.finfo(jnp.float32).min)
        weights_TxQ = jnp.exp(logits_TxQ - jnp.max(logits_TxQ, axis=0, keepdims=True))
        total_1xQ = jnp.sum(weights_TxQ, axis=0, keepdims=True)
        o_ref[:, block] = (_dot(v_DxT, weights_TxQ.astype(v_DxT.dtype), (1, 0)) / total_1xQ).astype(o_ref.dtype)


def _backward_kernel(q_ref, k_ref, v_ref, o_ref, lse_ref, do_ref, dq_ref, dk_ref, dv_ref, *, scale: float):  # noqa: PLR0913
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


def _call(kernel, name: str, inputs, out_shapes, products: int):
    """Runs a kernel for every (example, head). products: how many products of size (T, T, D) it computes."""
    B, N, D, T = inputs[0].shape

    def per_head(array):  # an axis of one is shared: a mask by all heads, a bias by all examples
        examples, heads = array.shape[0] > 1, array.shape[1] > 1
        return pl.BlockSpec((None, None, *array.shape[2:]), lambda b, n: (b * examples, n * heads, 0, 0))

    size = sum(a.size * a.dtype.itemsize for a in (*inputs, *out_shapes))
    work = pl.CostEstimate(
        flops=B * N * T * T * (2 * D * products + ELEMENTWISE), bytes_accessed=size, transcendentals=B * N * T * T
    )
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
def _attention(scale: float, q_BxNxDxT, k_BxNxDxT, v_BxNxDxT):
    return _forward(scale, q_BxNxDxT, k_BxNxDxT, v_BxNxDxT)[0]


def _forward(scale, q_BxNxDxT, k_BxNxDxT, v_BxNxDxT):
    qkv = [q_BxNxDxT, k_BxNxDxT, v_BxNxDxT]
    B, N, _, T = q_BxNxDxT.shape
    shapes = [jax.ShapeDtypeStruct(q_BxNxDxT.shape, q_BxNxDxT.dtype), jax.ShapeDtypeStruct((B, N, 1, T), jnp.float32)]
    out, lse = _call(partial(_forward_kernel, scale=scale), "attention", qkv, shapes, 2)
    # Named, so that rematerialisation can save them: recomputing the forward kernel would cost more time.
    out, lse = (checkpoint_name(a, "attention") for a in (out, lse))
    return out, (*qkv, out, lse)


def _backward(scale, saved, do):
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in saved[:3]]
    inputs = [*saved, do.astype(saved[0].dtype)]
    return tuple(_call(partial(_backward_kernel, scale=scale), "attention_backward", inputs, shapes, 5))


_attention.defvjp(_forward, _backward)
