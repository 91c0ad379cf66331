"""T5 encoder (Raffel et al. 2020; v1.0 with ReLU, v1.1 with gated GELU): without dropout.

Shapes: B batch, S tokens, E model width, N heads, D head size.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from elfcli.models.layers import RMSNorm, attention, scan_blocks, stack_blocks


@dataclass(frozen=True)
class T5Shape:
    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    gated: bool = False
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6
    dtype: Any = jnp.float32
    attention: str = "plain"  # or the fused kernel of a backend, as in layers.attention


class T5Block(nnx.Module):
    def __init__(self, shape: T5Shape, *, rngs: nnx.Rngs):
        inner = shape.num_heads * shape.d_kv

        def linear(din, dout):
            return nnx.Linear(din, dout, use_bias=False, dtype=shape.dtype, rngs=rngs)

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

    def __call__(self, x_BxSxE, bias_1xNxSxS, mask):
        B, S, _ = x_BxSxE.shape
        normed = self.attn_norm(x_BxSxE)
        q, k, v = (f(normed).reshape(B, S, self.num_heads, -1) for f in (self.q, self.k, self.v))
        attended = attention((q, k, v), mask, bias_1xNxSxS, scale=1.0, kernel=self.kernel)
        x_BxSxE += self.o(attended.reshape(B, S, -1))
        normed = self.mlp_norm(x_BxSxE)
        if self.gated:
            inner = nnx.gelu(self.wi_0(normed), approximate=True) * self.wi_1(normed)
        else:
            inner = nnx.relu(self.wi(normed))
        return x_BxSxE + self.wo(inner)


class T5Encoder(nnx.Module):
    def __init__(self, shape: T5Shape, *, rngs: nnx.Rngs):
        self.shape = shape
        self.embedding = nnx.Param(jnp.zeros((shape.vocab_size, shape.d_model)))
        self.rel_embedding = nnx.Param(jnp.zeros((shape.num_buckets, shape.num_heads)))
        self.blocks = stack_blocks(lambda rngs: T5Block(shape, rngs=rngs), shape.num_layers, rngs)
        self.final_norm = RMSNorm(shape.d_model, shape.eps)

    def __call__(self, ids_BxS, mask):
        """Latents (B, S, E), float32. mask: (B, S), or (B, S, S) of rows that attend to columns; nonzero: attended."""
        shape, S = self.shape, ids_BxS.shape[1]
        mask = (mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]).astype(bool)
        bucket_SxS = relative_bucket(np.arange(S)[None] - np.arange(S)[:, None], shape.num_buckets, shape.max_distance)
        bias_1xNxSxS = jnp.moveaxis(self.rel_embedding[bucket_SxS], -1, 0)[None].astype(shape.dtype)
        x_BxSxE = self.embedding[ids_BxS].astype(shape.dtype)
        x_BxSxE = scan_blocks(lambda block, x: block(x, bias_1xNxSxS, mask), x_BxSxE, self.blocks)
        return self.final_norm(x_BxSxE).astype(jnp.float32)


def relative_bucket(relative, num_buckets: int, max_distance: int) -> np.ndarray:
    """T5's bucket of each relative position, key - query: half of the buckets for each sign; of these, half for exact
    distances and half for logarithmic ranges up to max_distance.

    In numpy: another rounding of the logarithm could move a distance to another bucket.
    """
    half = num_buckets // 2
    exact = half // 2
    distance = np.abs(relative)
    log_ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(math.log(max_distance / exact))
    far = np.minimum(exact + (log_ratio * (half - exact)).astype(np.int32), half - 1)
    return half * (relative > 0) + np.where(distance < exact, distance, far)
