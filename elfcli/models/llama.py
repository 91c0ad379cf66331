"""Llama (Touvron et al. 2023) and Qwen 2 and 3, which differ in biases and norms: forward only, as judges of texts.

Shapes: B batch, T tokens, C model width, N heads, K heads of keys and values, D head size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from elfcli.models.layers import RMSNorm, apply_rope, attention, next_token_nll, rope_angles, scan_blocks, stack_blocks


@dataclass(frozen=True)
class LlamaShape:
    """Sizes and variant of a network.

    n_positions: context window. qkv_bias: as in Qwen 2. qk_norm: normalize each head of queries and keys, as in Qwen 3.
    """

    vocab_size: int
    n_positions: int
    width: int
    n_layer: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_inner: int
    rope_theta: float = 10000.0
    eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False  # the output layer shares the embedding
    dtype: Any = jnp.float32

    @property
    def network(self) -> type[nnx.Module]:
        """Return the network class."""
        return Llama


class LlamaBlock(nnx.Module):
    """One Transformer block."""

    def __init__(self, shape: LlamaShape, *, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int, use_bias: bool = False) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, use_bias=use_bias, dtype=shape.dtype, rngs=rngs)

        self.shape = shape
        queries, keys = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
        self.attn_norm = RMSNorm(shape.width, shape.eps)
        self.q = linear(shape.width, queries, shape.qkv_bias)
        self.k, self.v = (linear(shape.width, keys, shape.qkv_bias) for _ in range(2))
        self.o = linear(queries, shape.width)
        if shape.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(shape.head_dim, shape.eps) for _ in range(2))
        self.mlp_norm = RMSNorm(shape.width, shape.eps)
        self.gate, self.up = (linear(shape.width, shape.n_inner) for _ in range(2))
        self.down = linear(shape.n_inner, shape.width)

    def __call__(self, x_BxTxC: Array, mask_Bx1xTxT: Array, angles: tuple[Array, Array]) -> Array:
        B, T, _ = x_BxTxC.shape
        normed = self.attn_norm(x_BxTxC)
        q, k, v = (f(normed).reshape(B, T, -1, self.shape.head_dim) for f in (self.q, self.k, self.v))
        if self.shape.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, *angles), apply_rope(k, *angles)
        x_BxTxC += self.o(attention((q, k, v), mask_Bx1xTxT).reshape(B, T, -1))
        normed = self.mlp_norm(x_BxTxC)
        return x_BxTxC + self.down(nnx.silu(self.gate(normed)) * self.up(normed))


class Llama(nnx.Module):
    """Llama or Qwen as a scorer of given tokens."""

    def __init__(self, shape: LlamaShape, *, rngs: nnx.Rngs) -> None:
        self.shape = shape
        self.embedding = nnx.Param(jnp.zeros((shape.vocab_size, shape.width)))
        self.blocks = stack_blocks(lambda rngs: LlamaBlock(shape, rngs=rngs), shape.n_layer, rngs)
        self.norm = RMSNorm(shape.width, shape.eps)
        if not shape.tied:
            self.head = nnx.Param(jnp.zeros((shape.vocab_size, shape.width)))

    def __call__(self, ids_BxT: Array, mask_BxT: Array) -> Array:
        """Return features (B, T, C). Positions are 0..T-1; `mask` is True before the padding."""
        T = ids_BxT.shape[1]
        mask_Bx1xTxT = jnp.tril(jnp.ones((T, T), bool))[None, None] & mask_BxT[:, None, None, :].astype(bool)
        angles = rope_angles(jnp.arange(T), self.shape.head_dim, self.shape.rope_theta)
        x_BxTxC = self.embedding[ids_BxT].astype(self.shape.dtype)
        x_BxTxC = scan_blocks(lambda block, x: block(x, mask_Bx1xTxT, angles), x_BxTxC, self.blocks)
        return self.norm(x_BxTxC).astype(self.shape.dtype)

    def nll(self, features_BxTxC: Array, targets_BxT: Array) -> Array:
        """Return the negative log-likelihood (B, T) of the targets, float32."""
        weights_VxC = self.embedding[...] if self.shape.tied else self.head[...]
        return next_token_nll(weights_VxC, features_BxTxC, targets_BxT)
