"""The ELF network: one Transformer that denoises latents and decodes them into tokens (paper, network).

Shapes: B batch, S text positions, P prefix and mode positions, T = P + S, E latent width, H hidden width,
V vocabulary.
Parameter names are the reference's; its blocks_0, blocks_1, ... are stacked here along a leading layer axis `blocks`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from elfcli.models import layers
from elfcli.models.layers import (
    Linear,
    RMSNorm,
    apply_rope,
    attention,
    dropout,
    interleaved_to_halves,
    rms_norm,
    rope_angles,
)

SCALAR_FEATURES = 256
MAX_UNROLLED = 4  # blocks; more take long to compile
normal_002 = nnx.initializers.normal(0.02)


@dataclass(frozen=True)
class ElfShape:
    """All sizes and choices that determine the network's parameters and arithmetic."""

    latent_dim: int
    vocab_size: int
    depth: int
    hidden_size: int
    num_heads: int
    bottleneck_dim: int = 128
    num_time_tokens: int = 4
    num_self_cond_cfg_tokens: int = 4
    num_model_mode_tokens: int = 4
    text_position: int | None = None  # rotary position of the first token after the condition; None: it follows it
    self_cond: bool = True
    proj_dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    attention: str = "plain"  # or the fused kernel of a backend, as in layers.attention
    gradient_dtype: Any = jnp.float32  # as in layers.Linear

    def linear(
        self, inputs: int, outputs: int, rngs: nnx.Rngs, kernel_init=layers.xavier, use_bias: bool = True
    ) -> Linear:
        return Linear(inputs, outputs, use_bias=use_bias, kernel_init=kernel_init, dtype=self.dtype,
                      gradient_dtype=self.gradient_dtype, rngs=rngs)  # fmt: skip

    @property
    def mlp_dim(self) -> int:
        return int(4 * self.hidden_size * 2 / 3)


class ScalarEmbedder(nnx.Module):
    """Scalars (B,) to vectors (B, H): 256 cosine and sine features, then a two-layer MLP. Float32."""

    def __init__(self, hidden: int, *, rngs: nnx.Rngs):
        self.mlp_0 = nnx.Linear(SCALAR_FEATURES, hidden, kernel_init=normal_002, rngs=rngs)
        self.mlp_2 = nnx.Linear(hidden, hidden, kernel_init=normal_002, rngs=rngs)

    def __call__(self, scalar_B):
        half = SCALAR_FEATURES // 2
        frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(half) / half)
        angle = scalar_B[:, None] * frequency
        features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self.mlp_2(nnx.silu(self.mlp_0(features)))


class TextProjection(nnx.Module):
    """Latents (B, S, E) to hidden states (B, S, H) through the bottleneck."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs):
        self.proj1 = shape.linear(shape.latent_dim, shape.bottleneck_dim, rngs, use_bias=False)
        self.proj2 = shape.linear(shape.bottleneck_dim, shape.hidden_size, rngs)

    def __call__(self, x):
        return self.proj2(self.proj1(x))


class Attention(nnx.Module):
    """Self-attention with RMS-normalised queries and keys and rotary positions."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs):
        hidden, self.num_heads = shape.hidden_size, shape.num_heads
        self.kernel = shape.attention
        self.qkv = shape.linear(hidden, 3 * hidden, rngs)
        self.proj = shape.linear(hidden, hidden, rngs)
        self.q_norm = RMSNorm(hidden // shape.num_heads)
        self.k_norm = RMSNorm(hidden // shape.num_heads)

    def __call__(self, x_BxTxH, rope, mask):
        B, T, H = x_BxTxH.shape
        q, k, v = (y.reshape(B, T, self.num_heads, -1) for y in jnp.split(self._project(x_BxTxH), 3, axis=-1))
        q, k = (
            apply_rope(rms_norm(y, interleaved_to_halves(norm.weight[...], 1), norm.eps), *rope)
            for y, norm in ((q, self.q_norm), (k, self.k_norm))
        )
        return self.proj(attention((q, k, v), mask, kernel=self.kernel).reshape(B, T, H))

    def _project(self, x_BxTxH):
        """Queries, keys and values (B, T, 3H), those of queries and keys in the order of `apply_rope`.

        The weights are reordered, which is cheaper than reordering activations; products q k do not change.
        """

        def reordered(weights):
            q, k, v = jnp.split(weights, 3, axis=-1)
            return jnp.concatenate(
                [interleaved_to_halves(q, self.num_heads), interleaved_to_halves(k, self.num_heads), v], axis=-1
            )

        weights = nnx.to_pure_dict(nnx.state(self.qkv))
        return self.qkv(x_BxTxH, reordered(weights["kernel"]), reordered(weights["bias"]))


class SwiGLU(nnx.Module):
    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs):
        self.w12 = shape.linear(shape.hidden_size, 2 * shape.mlp_dim, rngs)
        self.w3 = shape.linear(shape.mlp_dim, shape.hidden_size, rngs)

    def __call__(self, x, drop):
        """drop: applied to the hidden product, before the second projection."""
        gate, value = jnp.split(self.w12(x), 2, axis=-1)
        return self.w3(drop(nnx.silu(gate) * value))


class Block(nnx.Module):
    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs):
        self.norm1 = RMSNorm(shape.hidden_size)
        self.attn = Attention(shape, rngs=rngs)
        self.norm2 = RMSNorm(shape.hidden_size)
        self.mlp = SwiGLU(shape, rngs=rngs)
        self.rate = shape.proj_dropout

    def __call__(self, x_BxTxH, rope, mask, active, key):
        """active: 1.0 where this layer's dropout acts; key: None without dropout."""
        keys = (None, None) if key is None else jax.random.split(key)

        def drop(y, key):
            return y if key is None else dropout(y, self.rate * active, key)

        x_BxTxH = x_BxTxH + drop(self.attn(self.norm1(x_BxTxH), rope, mask), keys[0])
        return x_BxTxH + self.mlp(self.norm2(x_BxTxH), lambda y: drop(y, keys[1]))


class FinalLayer(nnx.Module):
    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs):
        self.norm_final = RMSNorm(shape.hidden_size)
        self.linear = shape.linear(shape.hidden_size, shape.latent_dim, rngs, nnx.initializers.zeros)

    def __call__(self, x):
        return self.linear(self.norm_final(x))


class ELF(nnx.Module):
    """`model(x, t, w, decode)` returns features; `model.denoise` and `model.logits` are the two heads on them."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs):
        self.shape, hidden, latent = shape, shape.hidden_size, shape.latent_dim
        if shape.self_cond:
            self.self_cond_proj = shape.linear(2 * latent, latent, rngs)
        self.text_proj = TextProjection(shape, rngs=rngs)

        def learned_tokens(count):
            return nnx.Param(normal_002(rngs.params(), (1, count, hidden)))

        if shape.num_model_mode_tokens:
            self.mode_tokens = learned_tokens(shape.num_model_mode_tokens)
        self.t_emb_tokens = learned_tokens(shape.num_time_tokens)
        self.t_embedder = ScalarEmbedder(hidden, rngs=rngs)
        if shape.num_self_cond_cfg_tokens:
            self.self_cond_cfg_tokens = learned_tokens(shape.num_self_cond_cfg_tokens)
            self.self_cond_cfg_embedder = ScalarEmbedder(hidden, rngs=rngs)
        self.blocks = layers.stack_blocks(lambda rngs: Block(shape, rngs=rngs), shape.depth, rngs)
        self.final_layer = FinalLayer(shape, rngs=rngs)
        self.proj_kernel = nnx.Param(layers.xavier(rngs.params(), (hidden, latent)))
        self.proj_bias = nnx.Param(jnp.zeros((latent,)))
        self.unembed_kernel = nnx.Param(layers.xavier(rngs.params(), (latent, shape.vocab_size)))
        self.unembed_bias = nnx.Param(jnp.zeros((shape.vocab_size,)))

    def __call__(self, x_BxSxC, t_B, w_B, decode_B, start_B=None, key=None):
        """Features (B, S, H) of condition and text.

        x: noisy latents, concatenated with the previous estimate if the model is self-conditioned: C = 2E (else E).
        w: self-conditioning guidance scales; None: without guidance tokens.
        decode: 1 where the example is decoded, 0 where it is denoised.
        start: index of the text's first token, after the condition; None: no example has a condition.
        key: dropout key; None: no dropout.
        """
        prefix_BxPxH, text_BxSxH = self.embed(x_BxSxC, t_B, w_B, decode_B)
        return self.transform(prefix_BxPxH, text_BxSxH, start_B, key=key)

    def embed(self, x_BxSxC, t_B, w_B, decode_B):
        """Hidden states of the prefix (B, P, H) and of condition and text (B, S, H)."""
        x_BxSxC = x_BxSxC.astype(self.shape.dtype)
        x_BxSxE = self.self_cond_proj(x_BxSxC) if self.shape.self_cond else x_BxSxC
        return jnp.concatenate([*self._prefix(t_B, w_B, decode_B)], axis=1), self.text_proj(x_BxSxE)

    def transform(self, prefix_BxPxH, text_BxSxH, start_B=None, mask_BxS=None, key=None):
        """Features (B, S, H), from hidden states. mask: True at positions that are attended to; None: all."""
        shape, (P, S) = self.shape, (prefix_BxPxH.shape[1], text_BxSxH.shape[1])
        x_BxTxH = jnp.concatenate([prefix_BxPxH, text_BxSxH], axis=1)
        position = jnp.pad(self._positions(S, start_B), [(0, 0), (P, 0)])  # prefix tokens are not rotated
        rope = rope_angles(position, shape.hidden_size // shape.num_heads)
        if mask_BxS is not None:
            mask_BxS = jnp.pad(mask_BxS.astype(bool), ((0, 0), (P, 0)), constant_values=True)[:, None, None, :]
        layer = jnp.arange(shape.depth)
        active_L = ((layer >= shape.depth // 4) & (layer < shape.depth - shape.depth // 4)).astype(jnp.float32)
        keys = () if key is None or not shape.proj_dropout else (jax.random.split(key, shape.depth),)

        def body(block, x, active, key=None):
            return block(x, rope, mask_BxS, active, key)

        # A loop copies the weights and activations of its blocks, which on a CPU takes a tenth of the time.
        unroll = shape.depth if shape.remat == "none" and shape.depth <= MAX_UNROLLED else 1
        return layers.scan_blocks(body, x_BxTxH, self.blocks, active_L, *keys, remat=shape.remat, unroll=unroll)[:, P:]

    def _positions(self, S, start_B):
        """Rotary positions (B or 1, S): 0, 1, ..., from the text on those that start at `text_position`."""
        index_1xS, first = jnp.arange(S)[None], self.shape.text_position
        if first is None or start_B is None:
            return index_1xS
        return jnp.where(index_1xS < start_B[:, None], index_1xS, index_1xS + first - start_B[:, None])

    def _prefix(self, t_B, w_B, decode_B):
        """Time, guidance and mode tokens, each (B, count, H)."""
        dtype = self.shape.dtype
        yield (self.t_emb_tokens + self.t_embedder(t_B)[:, None]).astype(dtype)
        if self.shape.num_self_cond_cfg_tokens and w_B is not None:
            yield (self.self_cond_cfg_tokens + self.self_cond_cfg_embedder(w_B)[:, None]).astype(dtype)
        if self.shape.num_model_mode_tokens:
            yield (self.mode_tokens * decode_B[:, None, None]).astype(dtype)

    def denoise(self, features_BxSxH):
        """Estimate of the clean latents (B, S, E), float32."""
        return self.final_layer(features_BxSxH).astype(jnp.float32)

    def logits(self, features_BxSxH):
        """Token logits (B, S, V), float32."""
        dtype = self.shape.dtype
        latent = features_BxSxH @ self.proj_kernel.astype(dtype) + self.proj_bias.astype(dtype)
        latent = nnx.gelu(latent, approximate=True)
        logits = jnp.matmul(latent, self.unembed_kernel.astype(dtype), preferred_element_type=jnp.float32)
        return logits + self.unembed_bias

    def tokens(self, features_BxSxH):
        """The most likely tokens (B, S), computed without all logits (B, S, V) in memory."""
        return layers.map_position_chunks(
            lambda chunk: jnp.argmax(self.logits(chunk), axis=-1), self.shape.vocab_size, features_BxSxH
        )


@partial(jax.jit, static_argnums=0)
def init_params(shape: ElfShape, key) -> dict:
    """Randomly initialised float32 parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.state(ELF(shape, rngs=nnx.Rngs(params=key))))


def abstract_params(shape: ElfShape) -> dict:
    """Shapes and dtypes of the parameters, as a nested dict."""
    return nnx.to_pure_dict(nnx.state(layers.abstract(ELF, shape)))


def num_params(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
