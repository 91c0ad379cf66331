"""Layers shared by the networks: normalization, rotary positions, dropout, attention, scanning over stacked blocks.

Shapes: B batch, T tokens, H hidden width, N heads, D head size.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax import checkpoint_policies as policies
from jax.ad_checkpoint import checkpoint_name

from elfcli.models import gpu_layers, tpu_attention

Maybe = Array | None
xavier = nnx.initializers.xavier_uniform()
MAX_LOGITS = 2**26  # 256 MiB in float32; argmax or logsumexp needs a few times as much


class RMSNorm(nnx.Module):
    """Root-mean-square normalization over the last axis, computed in float32, returned in the input's dtype."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        self.weight = nnx.Param(jnp.ones((dim,)))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        return rms_norm(x, self.weight[...], self.eps)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale * weight).astype(x.dtype)


class Linear(nnx.Linear):
    """A layer x @ kernel + bias in `dtype` with float32 parameters.

    gradient_dtype: type in which the gradients of kernel and bias are summed over examples and devices. JAX's default
    derivative sums them in `dtype`.
    """

    def __init__(self, inputs: int, outputs: int, *, gradient_dtype: Any = jnp.float32, **settings: Any) -> None:
        super().__init__(inputs, outputs, **settings)
        self.gradient_dtype = gradient_dtype

    def __call__(self, x: Array, kernel: Maybe = None, bias: Maybe = None) -> Array:
        """Map x (..., inputs) to (..., outputs); kernel and bias replace the layer's parameters."""
        dtype = self.dtype or jnp.float32
        kernel = self.kernel[...] if kernel is None else kernel
        if bias is None:
            bias = self.bias[...] if self.bias is not None else jnp.zeros(())
        if self.gradient_dtype != jnp.float32 and dtype != jnp.float32:
            return x.astype(dtype) @ kernel.astype(dtype) + bias.astype(dtype)
        # Named, because rematerialization does not see the product inside.
        return checkpoint_name(affine(x.astype(dtype), kernel, bias), "product")


@jax.custom_vjp
def affine(x: Array, kernel_IxO: Array, bias_O: Array) -> Array:
    """Return x (..., I) @ kernel (I, O) + bias (O,) in x's dtype; gradients of kernel and bias are float32."""
    return x @ kernel_IxO.astype(x.dtype) + bias_O.astype(x.dtype)


def _affine_forward(x: Array, kernel_IxO: Array, bias_O: Array) -> tuple[Array, tuple[Array, ...]]:
    return affine(x, kernel_IxO, bias_O), (x, kernel_IxO, bias_O)


def _affine_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    x, kernel_IxO, bias_O = saved
    # On a CPU this order with two axes is twice as fast as JAX's default derivative, which transposes g.
    x_NxI, g_NxO = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    dkernel = jnp.matmul(x_NxI.T, g_NxO, preferred_element_type=jnp.float32)
    dbias = g_NxO.sum(0, dtype=jnp.float32) if bias_O.ndim else jnp.zeros(())
    return g @ kernel_IxO.astype(x.dtype).T, dkernel, dbias


affine.defvjp(_affine_forward, _affine_backward)


def rope_angles(position: Array, head_dim: int, theta: float = 10000.0) -> tuple[Array, Array]:
    """Return cosines and sines (..., T, head_dim / 2) of rotary positions (..., T) (Su et al. 2021)."""
    frequency_D = theta ** (-jnp.arange(0, head_dim, 2) / head_dim)
    angle = position[..., None] * frequency_D
    return jnp.cos(angle), jnp.sin(angle)


def apply_rope(x_BxTxNxD: Array, cos: Array, sin: Array) -> Array:
    """Rotate the pairs (x[i], x[i + D/2]): (a, b) -> (a cos - b sin, b cos + a sin), computed in float32.

    cos, sin: (T, D/2), or (B, T, D/2) if examples differ.
    """
    a, b = jnp.split(x_BxTxNxD.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BxTxNxD.dtype)


def interleaved_to_halves(weights: Array, num_heads: int) -> Array:
    """Reorder the last axis from heads of adjacent pairs (0 1)(2 3)... to the order that `apply_rope` expects."""
    heads = weights.reshape(*weights.shape[:-1], num_heads, -1, 2)
    return jnp.swapaxes(heads, -1, -2).reshape(weights.shape)


def dropout(x: Array, rate: Any, key: Array) -> Array:
    """Apply inverted dropout; `rate` may be traced (0 keeps everything)."""
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


def attention(
    qkv: Sequence[Array], mask: Maybe = None, bias: Maybe = None, scale: float | None = None, kernel: str = "plain"
) -> Array:
    """Return softmax attention (B, T, N, D) over all tokens, with the softmax in float32.

    qkv: queries, keys and values, each (B, T, N, D). mask: bool, broadcastable to (B, N, T, T), True at attended keys.
    scale: factor of the logits, by default 1/sqrt(D). kernel: `tpu` or `cudnn` for that backend's fused kernel, which
    is used if it supports the arguments. The TPU kernel takes mask and bias together and has no gradient.
    """
    q_BxTxNxD, k_BxTxNxD, v_BxTxNxD = qkv
    B, T, _, D = q_BxTxNxD.shape
    scale = D**-0.5 if scale is None else scale
    fits = kernel == "tpu" and tpu_attention.fits_vmem(B, T, D * q_BxTxNxD.dtype.itemsize)
    if fits and mask is not None and bias is not None:
        return tpu_attention.frozen_attention(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD, mask, bias, scale)
    if kernel == "cudnn" and gpu_layers.fits_cudnn(D):
        return gpu_layers.fused_attention(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD, mask, bias, scale)
    return jax.nn.dot_product_attention(q_BxTxNxD, k_BxTxNxD, v_BxTxNxD, bias, mask, scale=scale)


def map_position_chunks(function: Callable[..., Any], vocab_size: int, *arrays: Array, times: int = 1) -> Any:
    """Return `function(*arrays)` of arrays (B, S, ...), in chunks of positions of `times` MAX_LOGITS logits per device.

    The backward pass recomputes each chunk, so that not all logits are in memory there either.
    """
    B, S = arrays[0].shape[:2]
    mesh = jax.sharding.get_abstract_mesh()
    examples = B if mesh.empty else -(-B // mesh.size)
    size = max(times * MAX_LOGITS // (examples * vocab_size), 1)
    if size >= S:
        return function(*arrays)
    count = -(-S // size)

    def chunked(array: Array) -> Array:
        padded = jnp.pad(array, ((0, 0), (0, count * size - S), *[(0, 0)] * (array.ndim - 2)))
        return jnp.moveaxis(padded.reshape(B, count, size, *array.shape[2:]), 1, 0)

    recomputed = jax.checkpoint(function)
    results = jax.lax.map(lambda chunk: recomputed(*chunk), tuple(map(chunked, arrays)))
    return jnp.moveaxis(results, 0, 1).reshape(B, count * size, *results.shape[3:])[:, :S]


def next_token_nll(weights_VxC: Array, features_BxTxC: Array, targets_BxT: Array) -> Array:
    """Return -log softmax(features @ weights.T) at the targets, float32 (B, T), without all logits in memory."""

    def nll(features_BxSxC: Array, targets_BxS: Array) -> Array:
        weights = weights_VxC.T.astype(features_BxSxC.dtype)
        logits = jnp.matmul(features_BxSxC, weights, preferred_element_type=jnp.float32)
        target_logits = jnp.take_along_axis(logits, targets_BxS[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - target_logits

    return map_position_chunks(nll, len(weights_VxC), features_BxTxC, targets_BxT)


def stack_blocks(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> Any:
    """Return `depth` blocks `make(rngs)` as one module whose parameters have a leading layer axis."""
    return nnx.vmap(make, in_axes=0, out_axes=0)(rngs.fork(split=depth))


_both, _NAMED = policies.save_from_both_policies, policies.save_only_these_names("attention", "product")
REMAT_POLICIES = {
    "dots": _both(_both(policies.dots_with_no_batch_dims_saveable, _NAMED), gpu_layers.is_attention),
    "full": policies.nothing_saveable,
}


def scan_blocks(body: Callable, x: Array, blocks: Any, *xs: Array, remat: str = "none", unroll: int = 1) -> Array:
    """Apply `x = body(block, x, *per_layer)` for each of the stacked blocks in a scan, which is compiled once.

    xs: arrays with a leading layer axis. remat: what the backward pass recomputes: `none`, `dots` (everything but
    matrix products and attention; without a loop, XLA decides) or `full` (whole blocks). unroll: blocks to unroll.
    """

    def step(x: Array, layer: tuple) -> tuple[Array, None]:
        block, *per_layer = layer
        return body(block, x, *per_layer), None

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=remat == "full" and unroll > 1)
    return jax.lax.scan(step, x, (blocks, *xs), unroll=unroll)[0]


@cache
def abstract(network: Callable[..., nnx.Module], shape: Any) -> Any:
    """Return `network(shape)` with shapes and dtypes instead of arrays. Callers share the object: do not modify it."""
    return nnx.eval_shape(lambda: network(shape, rngs=nnx.Rngs(0)))


@cache
def graphdef_of(network: Callable[..., nnx.Module], shape: Any) -> Any:
    """Return the network without parameters; `nnx.merge(graphdef_of(network, shape), params)` is the model."""
    return nnx.graphdef(abstract(network, shape))
