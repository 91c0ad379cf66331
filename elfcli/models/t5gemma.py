"""Encoders of T5Gemma (Zhang et al. 2025) and of T5Gemma 2, text only: Gemma 2 and 3 with attention in both directions.

Shapes: B batch, S tokens, E model width, N heads, K heads of keys and values, D head size, L layers.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from elfcli.models.layers import RMSNorm, apply_rope, attention, rope_angles, scan_blocks, stack_blocks


@dataclass(frozen=True)
class T5GemmaShape:
    """Sizes and arithmetic of an encoder.

    sliding: for each layer, whether a token attends only to its neighbors. window: how many tokens before it and after
    it a token attends to in these layers. rope_thetas, rope_factors: base of the rotary frequencies and divisor of the
    positions, in other layers and in sliding ones. softcap: bound of the logits, as in Gemma 2. qk_norm: normalize each
    head of queries and keys, as in Gemma 3.
    """

    vocab_size: int
    width: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_inner: int
    sliding: tuple[bool, ...]
    window: tuple[int, int]
    scale: float
    rope_thetas: tuple[float, float]
    rope_factors: tuple[float, float] = (1.0, 1.0)
    softcap: float | None = None
    qk_norm: bool = False
    eps: float = 1e-6
    dtype: Any = jnp.float32
    attention: str = "plain"  # kernel of layers.attention

    @property
    def network(self) -> type[nnx.Module]:
        """Return the network class."""
        return T5GemmaEncoder


class T5GemmaBlock(nnx.Module):
    """One Transformer block."""

    def __init__(self, shape: T5GemmaShape, *, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, use_bias=False, dtype=shape.dtype, rngs=rngs)

        self.shape = shape
        self.pre_attn_norm, self.post_attn_norm, self.pre_mlp_norm, self.post_mlp_norm = (
            RMSNorm(shape.width, shape.eps) for _ in range(4)
        )
        self.q = linear(shape.width, shape.n_head * shape.head_dim)
        self.k, self.v = (linear(shape.width, shape.n_kv_head * shape.head_dim) for _ in range(2))
        self.o = linear(shape.n_head * shape.head_dim, shape.width)
        if shape.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(shape.head_dim, shape.eps) for _ in range(2))
        self.gate, self.up = (linear(shape.width, shape.n_inner) for _ in range(2))
        self.down = linear(shape.n_inner, shape.width)

    def __call__(self, x_BxSxE: Array, mask_Bx1xSxS: Array, angles: tuple[Array, Array]) -> Array:
        shape, (B, S, _) = self.shape, x_BxSxE.shape
        normed = self.pre_attn_norm(x_BxSxE)
        q, k, v = (f(normed).reshape(B, S, -1, shape.head_dim) for f in (self.q, self.k, self.v))
        if shape.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, *angles), apply_rope(k, *angles)
        if shape.softcap is None:
            attended = attention((q, k, v), mask_Bx1xSxS, scale=shape.scale, kernel=shape.attention)
        else:
            attended = softcapped_attention(q, k, v, mask_Bx1xSxS, shape.scale, shape.softcap)
        x_BxSxE += self.post_attn_norm(self.o(attended.reshape(B, S, -1)))
        normed = self.pre_mlp_norm(x_BxSxE)
        inner = nnx.gelu(self.gate(normed), approximate=True) * self.up(normed)
        return x_BxSxE + self.post_mlp_norm(self.down(inner))


class T5GemmaEncoder(nnx.Module):
    """The encoder half of T5Gemma."""

    def __init__(self, shape: T5GemmaShape, *, rngs: nnx.Rngs) -> None:
        self.shape = shape
        self.embedding = nnx.Param(jnp.zeros((shape.vocab_size, shape.width)))
        self.blocks = stack_blocks(lambda rngs: T5GemmaBlock(shape, rngs=rngs), len(shape.sliding), rngs)
        self.norm = RMSNorm(shape.width, shape.eps)

    def __call__(self, ids_BxS: Array, mask_BxSxS: Array) -> Array:
        """Return latents (B, S, E). mask: rows attend to nonzero columns."""
        shape, position = self.shape, jnp.arange(ids_BxS.shape[1])
        (before, after), ahead_SxS = shape.window, position[None] - position[:, None]
        near_SxS = (-before <= ahead_SxS) & (ahead_SxS <= after)
        angles = [
            rope_angles(position / factor, shape.head_dim, theta)
            for theta, factor in zip(shape.rope_thetas, shape.rope_factors, strict=True)
        ]
        cos_2xSxD, sin_2xSxD = map(jnp.stack, zip(*angles, strict=True))

        def body(block: T5GemmaBlock, x_BxSxE: Array, sliding: Any) -> Array:
            mask = mask_BxSxS.astype(bool) & (near_SxS | ~sliding)
            kind = sliding.astype(int)
            return block(x_BxSxE, mask[:, None], (cos_2xSxD[kind], sin_2xSxD[kind]))

        x_BxSxE = self.embedding[ids_BxS].astype(shape.dtype) * jnp.asarray(shape.width**0.5, shape.dtype)
        return self.norm(scan_blocks(body, x_BxSxE, self.blocks, jnp.asarray(shape.sliding)))


def softcapped_attention(
    q_BxSxNxD: Array, k_BxSxKxD: Array, v_BxSxKxD: Array, mask_Bx1xSxS: Array, scale: float, cap: float
) -> Array:
    """Return attention (B, S, N, D) whose logits are bounded by cap * tanh(logits / cap); the softmax is float32."""
    B, S, N, D = q_BxSxNxD.shape
    K = k_BxSxKxD.shape[2]
    q_BxSxKxGxD = q_BxSxNxD.reshape(B, S, K, N // K, D)
    logits = jnp.einsum("bskgd,btkd->bkgst", q_BxSxKxGxD, k_BxSxKxD, preferred_element_type=jnp.float32) * scale
    logits = jnp.where(mask_Bx1xSxS[:, :, None], cap * jnp.tanh(logits / cap), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(v_BxSxKxD.dtype)
    return jnp.einsum("bkgst,btkd->bskgd", weights, v_BxSxKxD).reshape(B, S, N, D)
