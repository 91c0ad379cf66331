"""T5 encoder (Raffel et al. 2020; v1.0 with ReLU, v1.1 with gated GELU; umT5: Chung et al. 2023), without dropout.

Shapes: B batch, S tokens, E model width, N heads, D head size, L layers, K buckets of distances.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from elfcli.models.gpu_layers import bias_and_mask
from elfcli.models.layers import Maybe, RMSNorm, attention, scan_blocks, stack_blocks


@dataclass(frozen=True)
class T5Shape:
    """Sizes and arithmetic of a T5 encoder."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    gated: bool = False
    layer_bias: bool = False  # umT5: each layer has its own position bias
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6
    dtype: Any = jnp.float32
    attention: str = "plain"  # kernel of layers.attention

    @property
    def network(self) -> type[nnx.Module]:
        """Return the network class."""
        return T5Encoder

    @property
    def width(self) -> int:
        """Return the width of the latents."""
        return self.d_model


class T5Block(nnx.Module):
    """One Transformer block."""

    def __init__(self, shape: T5Shape, *, rngs: nnx.Rngs) -> None:
        inner = shape.num_heads * shape.d_kv
        linear = partial(nnx.Linear, use_bias=False, dtype=shape.dtype, rngs=rngs)
        self.num_heads, self.kernel = shape.num_heads, shape.attention
        self.attn_norm = RMSNorm(shape.d_model, shape.eps)
        self.q, self.k, self.v = (linear(shape.d_model, inner) for _ in range(3))
        self.o = linear(inner, shape.d_model)
        self.mlp_norm = RMSNorm(shape.d_model, shape.eps)
        self.gated = shape.gated
        if shape.gated:
            self.wi_0, self.wi_1 = linear(shape.d_model, shape.d_ff), linear(shape.d_model, shape.d_ff)
        else:
            self.wi = linear(shape.d_model, shape.d_ff)
        self.wo = linear(shape.d_ff, shape.d_model)

    def __call__(self, x_BxSxE: Array, bias_BxNxSxS: Array, mask: Maybe) -> Array:
        B, S, _ = x_BxSxE.shape
        normed = self.attn_norm(x_BxSxE)
        q, k, v = (f(normed).reshape(B, S, self.num_heads, -1) for f in (self.q, self.k, self.v))
        attended = attention((q, k, v), mask, bias_BxNxSxS, scale=1.0, kernel=self.kernel)
        x_BxSxE += self.o(attended.reshape(B, S, -1))
        normed = self.mlp_norm(x_BxSxE)
        if self.gated:
            inner = nnx.gelu(self.wi_0(normed), approximate=True) * self.wi_1(normed)
        else:
            inner = nnx.relu(self.wi(normed))
        return x_BxSxE + self.wo(inner)


class T5Encoder(nnx.Module):
    """The encoder half of T5."""

    def __init__(self, shape: T5Shape, *, rngs: nnx.Rngs) -> None:
        self.shape = shape
        self.embedding = nnx.Param(jnp.zeros((shape.vocab_size, shape.d_model)))
        layers = (shape.num_layers,) if shape.layer_bias else ()
        self.rel_embedding = nnx.Param(jnp.zeros((*layers, shape.num_buckets, shape.num_heads)))
        self.blocks = stack_blocks(lambda rngs: T5Block(shape, rngs=rngs), shape.num_layers, rngs)
        self.final_norm = RMSNorm(shape.d_model, shape.eps)

    def __call__(self, ids_BxS: Array, mask: Array) -> Array:
        """Return latents (B, S, E), float32. mask: (B, S), or (B, S, S) whose rows attend to nonzero columns."""
        shape, S = self.shape, ids_BxS.shape[1]
        mask = (mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]).astype(bool)
        bucket_SxS = relative_bucket(np.arange(S)[None] - np.arange(S)[:, None], shape.num_buckets, shape.max_distance)

        def bias(rel_KxN: Array) -> Array:
            return jnp.moveaxis(rel_KxN[bucket_SxS], -1, 0)[None].astype(shape.dtype)

        x_BxSxE = self.embedding[ids_BxS].astype(shape.dtype)
        if shape.layer_bias:
            rel_LxKxN = self.rel_embedding[...]
            x_BxSxE = scan_blocks(lambda block, x, rel: block(x, bias(rel), mask), x_BxSxE, self.blocks, rel_LxKxN)
        else:
            both = bias_and_mask(bias(self.rel_embedding[...]), mask, shape.attention)
            x_BxSxE = scan_blocks(lambda block, x: block(x, *both), x_BxSxE, self.blocks)
        return self.final_norm(x_BxSxE).astype(jnp.float32)


def relative_bucket(relative: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """Return T5's bucket of each relative position, key - query.

    Half of the buckets are for each sign; of these, half are for exact distances and half for logarithmic ranges up to
    max_distance. Numpy, because another rounding of the logarithm could move a distance to another bucket.
    """
    half = num_buckets // 2
    exact = half // 2
    distance = np.abs(relative)
    log_ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(math.log(max_distance / exact))
    far = np.minimum(exact + (log_ratio * (half - exact)).astype(np.int32), half - 1)
    return half * (relative > 0) + np.where(distance < exact, distance, far)
