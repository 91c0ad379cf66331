"""The ELF network: one Transformer that denoises latents and decodes them into tokens (paper, network).

Shapes: B batch, S text positions, P prefix and mode positions, T = P + S, E latent width, H hidden width, V vocabulary.
Parameter names are the reference's, whose blocks_0, blocks_1, ... are stacked in `blocks` along a leading layer axis.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from elfcli.models import gpu_layers, layers
from elfcli.models.layers import Linear, Maybe, RMSNorm, interleaved_to_halves
from elfcli.models.tpu_attention import fits_vmem, projected_attention
from elfcli.models.tpu_products import add_bias, parameters, product, swiglu, tokens_last_product

SCALAR_FEATURES = 256
MAX_UNROLLED = 4  # blocks; more take long to compile
Rope = tuple[Array, Array]  # cosines and sines
normal_002 = nnx.initializers.normal(0.02)


@dataclass(frozen=True)
class ElfShape:
    """Sizes and choices that determine the network's parameters and arithmetic."""

    latent_dim: int
    vocab_size: int
    depth: int
    hidden_size: int
    num_heads: int
    bottleneck_dim: int = 128
    num_time_tokens: int = 4
    num_self_cond_cfg_tokens: int = 4
    num_model_mode_tokens: int = 4
    text_position: int | None = None  # fixed rotary position of the text's first token
    self_cond: bool = True
    proj_dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    attention: str = "plain"  # kernel of layers.attention
    gradient_dtype: Any = jnp.float32  # as in layers.Linear
    unroll: bool = False  # write out all blocks instead of a loop

    def linear(self, inputs: int, outputs: int, rngs: nnx.Rngs, **settings: Any) -> Linear:
        """Return a layer; settings: use_bias (True) and kernel_init (Xavier)."""
        settings = {"kernel_init": layers.xavier, "dtype": self.dtype, **settings}
        return Linear(inputs, outputs, gradient_dtype=self.gradient_dtype, rngs=rngs, **settings)

    @property
    def mlp_dim(self) -> int:
        """Return the width of the MLP's hidden product."""
        return int(4 * self.hidden_size * 2 / 3)


class ScalarEmbedder(nnx.Module):
    """Maps scalars (B,) to vectors (B, H): 256 cosine and sine features, then a two-layer MLP. Float32."""

    def __init__(self, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.mlp_0 = nnx.Linear(SCALAR_FEATURES, hidden, kernel_init=normal_002, rngs=rngs)
        self.mlp_2 = nnx.Linear(hidden, hidden, kernel_init=normal_002, rngs=rngs)

    def __call__(self, scalar_B: Array) -> Array:
        half = SCALAR_FEATURES // 2
        frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(half) / half)
        angle = scalar_B[:, None] * frequency
        features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self.mlp_2(nnx.silu(self.mlp_0(features)))


class TextProjection(nnx.Module):
    """Maps latents (B, S, E) to hidden states (B, S, H) through the bottleneck."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs) -> None:
        self.proj1 = shape.linear(shape.latent_dim, shape.bottleneck_dim, rngs, use_bias=False)
        self.proj2 = shape.linear(shape.bottleneck_dim, shape.hidden_size, rngs)

    def __call__(self, x: Array) -> Array:
        return self.proj2(self.proj1(x))


class Attention(nnx.Module):
    """Self-attention with RMS-normalized queries and keys and rotary positions."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs) -> None:
        hidden = shape.hidden_size
        self.num_heads = shape.num_heads
        self.kernel = shape.attention
        self.qkv = shape.linear(hidden, 3 * hidden, rngs)
        self.proj = shape.linear(hidden, hidden, rngs)
        self.q_norm, self.k_norm = (RMSNorm(hidden // shape.num_heads) for _ in range(2))

    def __call__(self, x_BxTxH: Array, rope: Rope, mask: Maybe) -> Array:
        B, T, H = x_BxTxH.shape
        weights, eps = [interleaved_to_halves(n.weight[...], 1) for n in (self.q_norm, self.k_norm)], self.q_norm.eps
        if self.kernel == "tpu" and mask is None and fits_vmem(B, T, H // self.num_heads * x_BxTxH.dtype.itemsize):
            kernel_Hx3H, bias_3H = map(self._reordered, parameters(self.qkv))
            qkv_Bx3HxT = tokens_last_product(x_BxTxH, kernel_Hx3H, (3, self.num_heads))
            kernel_HxH, bias_H = parameters(self.proj)
            return add_bias(product(projected_attention(qkv_Bx3HxT, bias_3H, weights, rope, eps), kernel_HxH), bias_H)
        separate = self.kernel == "cudnn"
        qkv = {name: self._reordered(w) for name, w in gpu_layers.weights_of(self.qkv, separate).items()}
        qk, v = gpu_layers.split_output(self.qkv, x_BxTxH, (2 * H, H), separate, qkv)
        q, k, v = (y.reshape(B, T, self.num_heads, -1) for y in (*jnp.split(qk, 2, axis=-1), v))
        turn = gpu_layers.rotated if separate else layers.apply_rope
        q, k = (turn(layers.rms_norm(y, w, eps), *rope) for y, w in zip((q, k), weights, strict=True))
        return self.proj(layers.attention((q, k, v), mask, kernel=self.kernel).reshape(B, T, H))

    def _reordered(self, weights: Array) -> Array:
        """Return weights (..., 3H) in the order of `apply_rope`: cheaper than reordering q and k; q k stays."""
        q, k, v = jnp.split(weights, 3, axis=-1)
        return jnp.concatenate([*(interleaved_to_halves(w, self.num_heads) for w in (q, k)), v], axis=-1)


class SwiGLU(nnx.Module):
    """The MLP of a block; `drop` is the dropout of the hidden product."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs) -> None:
        self.w12, self.kernel = shape.linear(shape.hidden_size, 2 * shape.mlp_dim, rngs), shape.attention
        self.w3 = shape.linear(shape.mlp_dim, shape.hidden_size, rngs)

    def __call__(self, x: Array, drop: Callable[[Array], Array] | None) -> Array:
        if self.kernel == "tpu" and drop is None:
            return swiglu(x, *parameters(self.w12), *parameters(self.w3))
        gate, value = gpu_layers.split_output(self.w12, x, (self.w3.in_features,) * 2, self.kernel == "cudnn")
        return self.w3((drop or (lambda y: y))(nnx.silu(gate) * value))


class Block(nnx.Module):
    """One Transformer block."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs) -> None:
        self.norm1 = RMSNorm(shape.hidden_size)
        self.attn = Attention(shape, rngs=rngs)
        self.norm2 = RMSNorm(shape.hidden_size)
        self.mlp = SwiGLU(shape, rngs=rngs)
        self.rate = shape.proj_dropout

    def __call__(self, x_BxTxH: Array, rope: Rope, mask: Maybe, active: Array, key: Maybe) -> Array:
        """active: 1.0 if this layer has dropout, else 0.0. key: None without dropout."""
        keys = (None, None) if key is None else jax.random.split(key)

        def drop(y: Array, key: Maybe) -> Array:
            return y if key is None else layers.dropout(y, self.rate * active, key)

        x_BxTxH = x_BxTxH + drop(self.attn(self.norm1(x_BxTxH), rope, mask), keys[0])
        return x_BxTxH + self.mlp(self.norm2(x_BxTxH), None if key is None else lambda y: drop(y, keys[1]))


class FinalLayer(nnx.Module):
    """Maps features to the estimate of the clean latents."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs) -> None:
        self.norm_final = RMSNorm(shape.hidden_size)
        self.linear = shape.linear(shape.hidden_size, shape.latent_dim, rngs, kernel_init=nnx.initializers.zeros)

    def __call__(self, x: Array) -> Array:
        return self.linear(self.norm_final(x))


class ELF(nnx.Module):
    """The network: `model(x, t, w, decode)` returns features; `model.denoise` and `model.logits` are the two heads."""

    def __init__(self, shape: ElfShape, *, rngs: nnx.Rngs) -> None:
        self.shape, hidden, latent = shape, shape.hidden_size, shape.latent_dim
        if shape.self_cond:
            self.self_cond_proj = shape.linear(2 * latent, latent, rngs)
        self.text_proj = TextProjection(shape, rngs=rngs)

        def learned_tokens(count: int) -> nnx.Param:
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

    def __call__(
        self, x_BxSxC: Array, t_B: Array, w_B: Maybe, decode_B: Array, start_B: Maybe = None, key: Maybe = None
    ) -> Array:
        """Return features (B, S, H) of condition and text.

        x: noisy latents, concatenated with the previous estimate if the model is self-conditioned: C = 2E (else E).
        w: self-conditioning guidance scales; None: without guidance tokens.
        decode: 1 for examples to decode, 0 for examples to denoise.
        start: index of the text's first token, after the condition; None: no example has a condition.
        key: dropout key; None: no dropout.
        """
        prefix_BxPxH, text_BxSxH = self.embed(x_BxSxC, t_B, w_B, decode_B)
        return self.transform(prefix_BxPxH, text_BxSxH, start_B, key=key)

    def embed(self, x_BxSxC: Array, t_B: Array, w_B: Maybe, decode_B: Array) -> tuple[Array, Array]:
        """Return the hidden states of the prefix (B, P, H) and of condition and text (B, S, H)."""
        x_BxSxC = x_BxSxC.astype(self.shape.dtype)
        x_BxSxE = self.self_cond_proj(x_BxSxC) if self.shape.self_cond else x_BxSxC
        return jnp.concatenate([*self._prefix(t_B, w_B, decode_B)], axis=1), self.text_proj(x_BxSxE)

    def transform(
        self, prefix_BxPxH: Array, text_BxSxH: Array, start_B: Maybe = None, mask_BxS: Maybe = None, key: Maybe = None
    ) -> Array:
        """Return features (B, S, H) of hidden states. mask: True at attended positions; None: all."""
        shape, (P, S) = self.shape, (prefix_BxPxH.shape[1], text_BxSxH.shape[1])
        x_BxTxH = gpu_layers.in_row_order(jnp.concatenate([prefix_BxPxH, text_BxSxH], axis=1), shape.unroll)
        position = jnp.pad(self._positions(S, start_B), [(0, 0), (P, 0)])  # prefix tokens are not rotated
        rope = layers.rope_angles(position, shape.hidden_size // shape.num_heads)
        if mask_BxS is not None:
            mask_BxS = jnp.pad(mask_BxS.astype(bool), ((0, 0), (P, 0)), constant_values=True)[:, None, None, :]
        layer = jnp.arange(shape.depth)
        active_L = ((layer >= shape.depth // 4) & (layer < shape.depth - shape.depth // 4)).astype(jnp.float32)
        keys = () if key is None or not shape.proj_dropout else (jax.random.split(key, shape.depth),)

        def body(block: Block, x: Array, active: Array, key: Maybe = None) -> Array:
            return block(x, rope, mask_BxS, active, key)

        # A loop copies the weights and activations of its blocks, which takes a tenth of the time on a CPU.
        unroll = shape.depth if shape.unroll or (shape.remat == "none" and shape.depth <= MAX_UNROLLED) else 1
        return layers.scan_blocks(body, x_BxTxH, self.blocks, active_L, *keys, remat=shape.remat, unroll=unroll)[:, P:]

    def _positions(self, S: int, start_B: Maybe) -> Array:
        """Return rotary positions (B or 1, S): 0, 1, ...; those of the text start at `text_position` if it is set."""
        index_1xS, first = jnp.arange(S)[None], self.shape.text_position
        if first is None or start_B is None:
            return index_1xS
        return jnp.where(index_1xS < start_B[:, None], index_1xS, index_1xS + first - start_B[:, None])

    def _prefix(self, t_B: Array, w_B: Maybe, decode_B: Array) -> Iterator[Array]:
        """Yield time, guidance and mode tokens, each (B, count, H)."""
        dtype = self.shape.dtype
        yield (self.t_emb_tokens + self.t_embedder(t_B)[:, None]).astype(dtype)
        if self.shape.num_self_cond_cfg_tokens and w_B is not None:
            yield (self.self_cond_cfg_tokens + self.self_cond_cfg_embedder(w_B)[:, None]).astype(dtype)
        if self.shape.num_model_mode_tokens:
            yield (self.mode_tokens * decode_B[:, None, None]).astype(dtype)

    def denoise(self, features_BxSxH: Array) -> Array:
        """Return the estimate of the clean latents (B, S, E), float32."""
        return self.final_layer(features_BxSxH).astype(jnp.float32)

    def logits(self, features_BxSxH: Array) -> Array:
        """Return token logits (B, S, V), float32."""
        dtype = self.shape.dtype
        latent = features_BxSxH @ self.proj_kernel.astype(dtype) + self.proj_bias.astype(dtype)
        latent = nnx.gelu(latent, approximate=True)
        return gpu_layers.float32_logits(latent, self.unembed_kernel[...]) + self.unembed_bias

    def cross_entropy(self, features_GxNxSxH: Array, ids_GxNxS: Array) -> Array:
        """Return -log softmax(logits) at the tokens, float32 (G, N, S), without holding all logits in memory."""

        def entropy(features_BxSxH: Array, ids_BxS: Array) -> Array:
            return gpu_layers.token_entropy(self.logits(features_BxSxH), ids_BxS, self.shape.attention == "cudnn")

        flat = (array.reshape(-1, *array.shape[2:]) for array in (features_GxNxSxH, ids_GxNxS))
        times = 2 if self.shape.attention == "tpu" else 1  # there, recomputing chunks would take 2% of a step
        return layers.map_position_chunks(entropy, self.shape.vocab_size, *flat, times=times).reshape(ids_GxNxS.shape)

    def tokens(self, features_BxSxH: Array) -> Array:
        """Return the most likely tokens (B, S) without holding all logits (8 GiB for 64 x 1,024 tokens) in memory."""

        def best(chunk_BxSxH: Array) -> Array:
            return jnp.argmax(self.logits(chunk_BxSxH), axis=-1)

        return layers.map_position_chunks(best, self.shape.vocab_size, features_BxSxH)


@partial(jax.jit, static_argnums=0)
def init_params(shape: ElfShape, key: Array) -> dict:
    """Return random float32 parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.state(ELF(shape, rngs=nnx.Rngs(params=key))))


def abstract_params(shape: ElfShape) -> dict:
    """Return shapes and dtypes of the parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.state(layers.abstract(ELF, shape)))


def num_params(params: Any) -> int:
    """Return the number of parameters in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
