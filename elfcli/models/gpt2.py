"""GPT-2 (Radford et al. 2019), forward only: the judge of generative perplexity, and an encoder by its last layer.

Shapes: B batch, T tokens, C model width, N heads, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from elfcli.errors import InputError
from elfcli.models.layers import attention, next_token_nll, scan_blocks, stack_blocks


@dataclass(frozen=True)
class Gpt2Shape:
    """Sizes and arithmetic of a GPT-2 network."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    eps: float = 1e-5
    dtype: Any = jnp.float32
    attention: str = "plain"  # kernel of layers.attention

    @property
    def network(self) -> type[nnx.Module]:
        """Return the network class."""
        return GPT2

    @property
    def width(self) -> int:
        """Return the width of the features."""
        return self.n_embd


class Gpt2Block(nnx.Module):
    """One Transformer block."""

    def __init__(self, shape: Gpt2Shape, *, rngs: nnx.Rngs) -> None:
        width, inner, dtype = shape.n_embd, shape.n_inner, shape.dtype
        self.num_heads, self.kernel = shape.n_head, shape.attention
        self.ln_1 = nnx.LayerNorm(width, epsilon=shape.eps, rngs=rngs)
        self.c_attn = nnx.Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.c_proj = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.ln_2 = nnx.LayerNorm(width, epsilon=shape.eps, rngs=rngs)
        self.c_fc = nnx.Linear(width, inner, dtype=dtype, rngs=rngs)
        self.mlp_proj = nnx.Linear(inner, width, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxC: Array, mask_Bx1xTxT: Array) -> Array:
        B, T, C = x_BxTxC.shape
        qkv = self.c_attn(self.ln_1(x_BxTxC)).reshape(B, T, 3, self.num_heads, -1)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        x_BxTxC += self.c_proj(attention((q, k, v), mask_Bx1xTxT, kernel=self.kernel).reshape(B, T, C))
        return x_BxTxC + self.mlp_proj(nnx.gelu(self.c_fc(self.ln_2(x_BxTxC)), approximate=True))


class GPT2(nnx.Module):
    """GPT-2 as a scorer of given tokens."""

    def __init__(self, shape: Gpt2Shape, *, rngs: nnx.Rngs) -> None:
        self.shape = shape
        self.wte = nnx.Param(jnp.zeros((shape.vocab_size, shape.n_embd)))
        self.wpe = nnx.Param(jnp.zeros((shape.n_positions, shape.n_embd)))
        self.blocks = stack_blocks(lambda rngs: Gpt2Block(shape, rngs=rngs), shape.n_layer, rngs)
        self.ln_f = nnx.LayerNorm(shape.n_embd, epsilon=shape.eps, rngs=rngs)

    def __call__(self, ids_BxT: Array, mask: Array) -> Array:
        """Return features (B, T, C) of the last layer. Position ids are 0..T-1.

        mask: (B, T), True before the padding, or (B, T, T) whose rows attend to nonzero columns. A token never attends
        to later ones. Raises InputError if there are more tokens than positions.
        """
        T = ids_BxT.shape[1]
        if self.shape.n_positions < T:
            raise InputError(f"GPT-2 has {self.shape.n_positions} positions, but sequences have {T} tokens: "
                             "lower max_length, or choose another encoder")  # fmt: skip
        mask_BxRxT = (mask[:, None, :] if mask.ndim == 2 else mask).astype(bool)
        mask_Bx1xTxT = (jnp.tril(jnp.ones((T, T), bool)) & mask_BxRxT)[:, None]
        x_BxTxC = (self.wte[ids_BxT] + self.wpe[:T]).astype(self.shape.dtype)
        x_BxTxC = scan_blocks(lambda block, x: block(x, mask_Bx1xTxT), x_BxTxC, self.blocks)
        return self.ln_f(x_BxTxC).astype(self.shape.dtype)

    def nll(self, features_BxTxC: Array, targets_BxT: Array) -> Array:
        """Return the negative log-likelihood (B, T) of the targets, float32."""
        return next_token_nll(self.wte[...], features_BxTxC, targets_BxT)
