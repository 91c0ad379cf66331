"""Softmax attention in one TPU kernel: the logits (T, T) of a head never leave the chip's fast memory.

Sequences are short (about a thousand tokens), so the kernel holds all keys and values of a head, and the softmax needs
no running maximum. Arrays are transposed, (D, T), as the preceding projection stores them, so that tokens fill the 128
lanes for any head size. The network's kernel also normalizes and rotates queries and keys, so that memory holds them
only as the projection wrote them. Its backward pass repeats both and recomputes the weights from the log-sum-exp.
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
MAX_UNROLLED = 4  # blocks of queries
ELEMENTWISE = 5  # operations that XLA counts per logit of plain attention: scale, maximum, subtraction, sum, division
# Operations for the T D elements of a head, as many as XLA counts: biases (3), norm (4) and rotation (3) of queries and
# keys; in the backward pass the gradients of norm (8), rotation (3) and biases (3), and the sum of out * dout (2).
PREPARE = 3 + 2 * (4 + 3)
PREPARE_BACKWARD = 2 * (8 + 3) + 3 + 2


def projected_attention(
    product_BxCxT: Array, bias_C: Array, weights: Sequence[Array], rope: tuple[Array, Array], eps: float
) -> Array:
    """Return attention (B, T, H) of all tokens to all tokens; product + bias: queries, keys and values, C = 3H.

    Queries and keys are RMS-normalized with `weights`, (D,) each, and rotated as in `layers.apply_rope`, in float32.
    rope: cosines and sines, (T, D/2) or (1 or B, T, D/2) each. Under a mesh (`jax.set_mesh`), each device runs the
    kernel on its own examples.
    """
    (B, C, T), D = product_BxCxT.shape, len(weights[0])
    N = C // 3 // D
    tables = [jnp.swapaxes(table.reshape(-1, T, D // 2), 1, 2) for table in rope]
    norms_NxDx2 = jnp.broadcast_to(jnp.stack([weights[0] * D**-0.5, weights[1]], axis=-1), (N, D, 2))
    biases_NxDx3 = jnp.moveaxis(bias_C.reshape(3, N, D), 0, -1)
    params_1xNxDx5 = jnp.concatenate([norms_NxDx2, biases_NxDx3], axis=-1, dtype=jnp.float32)[None]
    run = each_device(partial(_attention, eps), (True, False, *(len(table) > 1 for table in tables)))
    return tokens_first(run(product_BxCxT.reshape(B, 3, N, D, T), params_1xNxDx5, *tables))


def frozen_attention(
    q_BxTxNxD: Array, k_BxTxNxD: Array, v_BxTxNxD: Array, mask: Array, bias_1xNxTxT: Array, scale: float
) -> Array:
    """Return softmax attention with a bias of the logits and a mask (True: attended) broadcastable to (B, 1, T, T).

    Computes in the inputs' dtype with a float32 softmax. It has no gradient, which the frozen encoder does not need.
    """
    B, T = q_BxTxNxD.shape[:2]

    def run(q: Array, k: Array, v: Array, mask_Bx1xTxT: Array, bias_1xNxTxT: Array) -> Array:
        inputs = [*map(_tokens_last, (q, k, v)), *(jnp.swapaxes(a, -1, -2) for a in (mask_Bx1xTxT, bias_1xNxTxT))]
        shapes = [jax.ShapeDtypeStruct(inputs[0].shape, q.dtype)]
        return _back(_call(partial(_frozen_kernel, scale=scale), "frozen_attention", inputs, shapes, 2)[0])

    mask_Bx1xTxT = jnp.broadcast_to(mask, (B, 1, T, T)).astype(jnp.int8)
    run_everywhere = each_device(run, (True, True, True, True, False))
    return run_everywhere(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD, mask_Bx1xTxT, bias_1xNxTxT)


def each_device(run: Callable[..., Array], by_example: tuple[bool, ...]) -> Callable[..., Array]:
    """Return `run` for every device, which gets its part of the arguments that are sharded over examples."""
    if _on_one_device():
        return run
    part = PartitionSpec(_mesh().axis_names)
    specs = tuple(part if sharded else PartitionSpec() for sharded in by_example)
    return jax.shard_map(run, in_specs=specs, out_specs=part, check_vma=False)


def tokens_first(x: Array) -> Array:
    """Return x (B, ..., T) as (B, T, C)."""
    return jnp.moveaxis(x, -1, 1).reshape(len(x), x.shape[-1], -1)


def _tokens_last(x_BxTxNxD: Array) -> Array:
    return jnp.transpose(x_BxTxNxD, (0, 2, 3, 1))


def _back(x_BxNxDxT: Array) -> Array:
    return jnp.transpose(x_BxNxDxT, (0, 3, 1, 2))


def fits_vmem(batch_size: int, length: int, row_bytes: int) -> bool:
    """Return whether a head and a block's logits fit into fast memory and the devices divide the batch.

    row_bytes: bytes of a token's query.
    """
    fits = length * max(LANES, row_bytes) <= MAX_BLOCK_LOGITS
    return fits and (_on_one_device() or batch_size % _mesh().size == 0)


def _mesh() -> Any:
    return jax.sharding.get_abstract_mesh()


def _on_one_device() -> bool:
    return _mesh().empty or _mesh().size == 1 or _mesh().are_all_axes_manual


def _query_blocks(length: int) -> list[slice]:
    """Return the fewest blocks that fit, of equal size except the last, each a multiple of the lanes."""
    most = min(MAX_BLOCK_LOGITS // length, 4 * LANES) // LANES * LANES
    size = -(-length // -(-length // most) // LANES) * LANES
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def _for_each_block(length: int, run: Callable[[Any], None]) -> None:
    """Run `run(slice)` for each block of queries; many blocks run in a loop, which compiles in less time."""
    blocks = _query_blocks(length)
    size, in_loop = blocks[0].stop, len(blocks) - 1 if len(blocks) > MAX_UNROLLED else 0
    if in_loop:
        jax.lax.fori_loop(0, in_loop, lambda i, _: run(pl.ds(pl.multiple_of(i * size, LANES), size)), None)
    for block in blocks[in_loop:]:
        run(block)


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Return the product over axis `contract[0]` of a and `contract[1]` of b, accumulated in float32."""
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def _rotate(x_DxT: Array, cos: Array, sin: Array) -> Array:
    a, b = x_DxT[: len(cos)], x_DxT[len(cos) :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=0)


def _normalize(x_DxT: Array, eps: float) -> tuple[Array, Array]:
    """Return (x / rms, 1 / rms) in float32; the mean is over D."""
    x32_DxT = x_DxT.astype(jnp.float32)
    scale_1xT = jax.lax.rsqrt(jnp.mean(x32_DxT * x32_DxT, axis=0, keepdims=True) + eps)
    return x32_DxT * scale_1xT, scale_1xT


def _prepare(qkv_ref: Any, param_ref: Any, rope: tuple[Array, Array], eps: float, prepared_ref: Any) -> None:
    """Write normalized and rotated queries (with the factor of the logits) and keys, and values, (3, D, T)."""
    for i in range(2):
        normal_DxT, _ = _normalize(_with_bias(qkv_ref, param_ref, i), eps)
        prepared_ref[i] = _rotate(normal_DxT * param_ref[:, i : i + 1], *rope).astype(prepared_ref.dtype)
    prepared_ref[2] = _with_bias(qkv_ref, param_ref, 2).astype(prepared_ref.dtype)


def _with_bias(qkv_ref: Any, param_ref: Any, i: int) -> Array:
    return qkv_ref[i].astype(jnp.float32) + param_ref[:, 2 + i : 3 + i]


def _forward_kernel(*refs: Any, eps: float) -> None:
    qkv_ref, param_ref, cos_ref, sin_ref, o_ref, lse_ref, prepared_ref = refs
    _prepare(qkv_ref, param_ref, (cos_ref[...], sin_ref[...]), eps, prepared_ref)
    k_DxT, v_DxT = prepared_ref[1], prepared_ref[2]

    def run(block: Any) -> None:
        logits_TxQ = _dot(k_DxT, prepared_ref[0, :, block], (0, 0))
        top_1xQ = jnp.max(logits_TxQ, axis=0, keepdims=True)
        weights_TxQ = jnp.exp(logits_TxQ - top_1xQ)
        total_1xQ = jnp.sum(weights_TxQ, axis=0, keepdims=True)
        out_DxQ = _dot(v_DxT, weights_TxQ.astype(v_DxT.dtype), (1, 0)) / total_1xQ
        o_ref[:, block] = out_DxQ.astype(o_ref.dtype)
        lse_ref[:, block] = top_1xQ + jnp.log(total_1xQ)

    _for_each_block(k_DxT.shape[1], run)


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


def _backward_kernel(*refs: Any, eps: float) -> None:
    qkv_ref, param_ref, cos_ref, sin_ref, o_ref, lse_ref, do_ref, dqkv_ref, dparam_ref, prepared_ref, sum_ref = refs
    cos, sin = cos_ref[...], sin_ref[...]
    _prepare(qkv_ref, param_ref, (cos, sin), eps, prepared_ref)
    k_DxT, v_DxT = prepared_ref[1], prepared_ref[2]
    sum_ref[...] = jnp.zeros(sum_ref.shape, sum_ref.dtype)  # gradients of what _prepare wrote

    def run(block: Any) -> None:
        q_DxQ, do_DxQ = prepared_ref[0, :, block], do_ref[:, block]
        weights_TxQ = jnp.exp(_dot(k_DxT, q_DxQ, (0, 0)) - lse_ref[:, block])
        sum_ref[2] += _dot(do_DxQ, weights_TxQ.astype(do_DxQ.dtype), (1, 1))
        dweights_TxQ = _dot(v_DxT, do_DxQ, (0, 0))
        shift_1xQ = jnp.sum(o_ref[:, block].astype(jnp.float32) * do_DxQ, axis=0, keepdims=True)
        dlogits_TxQ = (weights_TxQ * (dweights_TxQ - shift_1xQ)).astype(q_DxQ.dtype)
        sum_ref[0, :, block] = _dot(k_DxT, dlogits_TxQ, (1, 0))
        sum_ref[1] += _dot(q_DxQ, dlogits_TxQ, (1, 1))

    _for_each_block(k_DxT.shape[1], run)
    for i in range(3):
        d_DxT = sum_ref[i]
        if i < 2:
            d_DxT = _rotate(d_DxT, cos, -sin)
            normal_DxT, scale_1xT = _normalize(_with_bias(qkv_ref, param_ref, i), eps)
            dparam_ref[:, i : i + 1] = jnp.sum(d_DxT * normal_DxT, axis=1, keepdims=True)
            d_DxT = d_DxT * param_ref[:, i : i + 1]
            mean_1xT = jnp.mean(d_DxT * normal_DxT, axis=0, keepdims=True)
            d_DxT = (d_DxT - normal_DxT * mean_1xT) * scale_1xT
        dqkv_ref[i] = d_DxT.astype(dqkv_ref.dtype)
        dparam_ref[:, 2 + i : 3 + i] = jnp.sum(d_DxT, axis=1, keepdims=True)


def _call(
    kernel: Callable,
    name: str,
    inputs: Sequence[Array],
    out_shapes: Sequence[Any],
    products: int,
    per_element: int = 0,
    scratch: Sequence[Any] = (),
) -> Any:
    """Run a kernel for every (example, head).

    Arrays: (B, 3, N, D, T) of a projection, (B or 1, N or 1, ...) of heads, or (B or 1, ...); an axis of one is shared.
    products: number of products of size (T, T, D). per_element: operations for each of the T D elements of a head.
    scratch: dtypes of arrays (3, D, T) in fast memory.
    """
    B, N, D, T = (inputs[0].shape[i] for i in (0, -3, -2, -1))

    def part(array: Any) -> pl.BlockSpec:
        examples = array.shape[0] > 1
        if array.ndim == 3:
            return pl.BlockSpec((None, *array.shape[1:]), lambda b, n: (b * examples, 0, 0))
        if array.ndim == 5:
            return pl.BlockSpec((None, 3, None, D, T), lambda b, n: (b, 0, n, 0, 0))
        heads = array.shape[1] > 1
        return pl.BlockSpec((None, None, *array.shape[2:]), lambda b, n: (b * examples, n * heads, 0, 0))

    size = sum(a.size * a.dtype.itemsize for a in (*inputs, *out_shapes))
    flops = B * N * T * (T * (2 * D * products + ELEMENTWISE) + D * per_element)
    work = pl.CostEstimate(flops=flops, bytes_accessed=size, transcendentals=B * N * T * T)
    return pl.pallas_call(
        kernel,
        grid=(B, N),
        in_specs=[part(a) for a in inputs],
        out_specs=[part(a) for a in out_shapes],
        out_shape=out_shapes,
        scratch_shapes=[pltpu.VMEM((3, D, T), dtype) for dtype in scratch],
        cost_estimate=work,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=32 * 2**20),
        name=name,
    )(*inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(eps: float, qkv_Bx3xNxDxT: Array, params_1xNxDx5: Array, cos: Array, sin: Array) -> Array:
    """params: weights of the norms of queries and keys, biases of queries, keys and values."""
    return _forward(eps, qkv_Bx3xNxDxT, params_1xNxDx5, cos, sin)[0]


def _forward(eps: float, *inputs: Array) -> tuple[Array, tuple[Array, ...]]:
    B, _, N, D, T = inputs[0].shape
    shapes = [jax.ShapeDtypeStruct((B, N, D, T), inputs[0].dtype), jax.ShapeDtypeStruct((B, N, 1, T), jnp.float32)]
    scratch = [inputs[0].dtype]
    out, lse = _call(partial(_forward_kernel, eps=eps), "attention", inputs, shapes, 2, PREPARE, scratch)
    # Named, so that rematerialization can save them: recomputing the forward kernel would cost more time.
    out, lse = (checkpoint_name(a, "attention") for a in (out, lse))
    return out, (*inputs, out, lse)


def _backward(eps: float, saved: tuple[Array, ...], do_BxNxDxT: Array) -> tuple[Array | None, ...]:
    qkv, (B, N, D, _) = saved[0], do_BxNxDxT.shape
    shapes = [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), jax.ShapeDtypeStruct((B, N, D, 5), jnp.float32)]
    inputs, per_element = [*saved, do_BxNxDxT.astype(qkv.dtype)], PREPARE + PREPARE_BACKWARD
    kernel, scratch = partial(_backward_kernel, eps=eps), [qkv.dtype, jnp.float32]
    dqkv, dparams = _call(kernel, "attention_backward", inputs, shapes, 5, per_element, scratch)
    return dqkv, dparams.sum(0, keepdims=True), None, None


_attention.defvjp(_forward, _backward)
