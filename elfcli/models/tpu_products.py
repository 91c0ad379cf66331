"""Matrix products with derivatives for TPUs, whose compiler then copies no activations to another memory layout.

Shapes: B batch, T tokens, I inputs, O outputs, D head size, H hidden width, M width of the MLP. A parameter's gradient
is summed in the parameter's dtype; all else is computed in x's dtype. docs/experiments.md has what each point saves.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from elfcli.models.layers import Linear
from elfcli.models.tpu_attention import each_device, tokens_first


def parameters(layer: Linear) -> tuple[Array, Array]:
    """Return kernel and bias in the type in which their gradients are summed."""
    assert layer.bias is not None
    dtype = jnp.float32 if layer.gradient_dtype == jnp.float32 else layer.dtype
    return layer.kernel[...].astype(dtype), layer.bias[...].astype(dtype)


def product(x_BxTxI: Array, kernel_IxO: Array) -> Array:
    """Return x @ kernel (B, T, O)."""
    return checkpoint_name(_product(x_BxTxI, kernel_IxO), "product")


@jax.custom_vjp
def _product(x_BxTxI: Array, kernel_IxO: Array) -> Array:
    return x_BxTxI @ kernel_IxO.astype(x_BxTxI.dtype)


def _product_forward(x_BxTxI: Array, kernel_IxO: Array) -> tuple[Array, tuple[Array, ...]]:
    return _product(x_BxTxI, kernel_IxO), (x_BxTxI, kernel_IxO)


def _product_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array]:
    x_BxTxI, kernel_IxO = saved
    return g @ kernel_IxO.astype(g.dtype).T, _kernel_gradient(x_BxTxI, g, kernel_IxO.dtype)


def _kernel_gradient(x_BxTxI: Array, g: Array, dtype: Any) -> Array:
    return jnp.einsum("bti,bto->io", x_BxTxI, g, preferred_element_type=dtype)


_product.defvjp(_product_forward, _product_backward)


def tokens_last_product(x_BxTxI: Array, kernel_IxO: Array, heads: tuple[int, ...]) -> Array:
    """Return x @ kernel as (B, O, T), stored in this order, which the attention kernel reads. O = heads x D."""
    return checkpoint_name(_tokens_last_product(heads, x_BxTxI, kernel_IxO), "product")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tokens_last_product(heads: tuple[int, ...], x_BxTxI: Array, kernel_IxO: Array) -> Array:
    def run(x_BxTxI: Array, kernel_IxO: Array) -> Array:
        return with_layout_constraint(jnp.swapaxes(x_BxTxI @ kernel_IxO, 1, 2), Layout((0, 1, 2)))

    # The compiler keeps the product in this order only on each device, before it divides the program among devices.
    return each_device(run, (True, False))(x_BxTxI, kernel_IxO.astype(x_BxTxI.dtype))


def _tokens_last_forward(heads: tuple[int, ...], x_BxTxI: Array, kernel_IxO: Array) -> tuple[Array, tuple[Array, ...]]:
    return _tokens_last_product(heads, x_BxTxI, kernel_IxO), (x_BxTxI, kernel_IxO)


def _tokens_last_backward(heads: tuple[int, ...], saved: tuple[Array, ...], g: Array) -> tuple[Array, Array]:
    # By heads, as the kernel wrote it: transposing (B, O, T) would copy.
    return _product_backward(saved, tokens_first(g.reshape(len(g), *heads, -1, g.shape[-1])))


_tokens_last_product.defvjp(_tokens_last_forward, _tokens_last_backward)


@jax.custom_vjp
def add_bias(x: Array, bias_O: Array) -> Array:
    """Return x (B, T, O) + bias (O,)."""
    return x + bias_O.astype(x.dtype)


def _add_bias_forward(x: Array, bias_O: Array) -> tuple[Array, Array]:
    return add_bias(x, bias_O), bias_O


add_bias.defvjp(_add_bias_forward, lambda bias_O, g: (g, g.sum((0, 1), bias_O.dtype)))


@jax.custom_vjp
def swiglu(x_BxTxH: Array, in_Hx2M: Array, in_bias_2M: Array, out_MxH: Array, out_bias_H: Array) -> Array:
    """Return (silu(gate) * value) @ out + out_bias; [gate value] = x @ in + in_bias.

    Gate and value are products of their own, so that XLA reads what it kept of them in the pass that uses them, and
    their biases' gradients are sums of the pass that computes their own.
    """
    return _swiglu_forward(x_BxTxH, in_Hx2M, in_bias_2M, out_MxH, out_bias_H)[0]


def _gated(gate_BxTxM: Array, value_BxTxM: Array) -> Array:
    return nnx.silu(gate_BxTxM) * value_BxTxM


def _swiglu_forward(
    x_BxTxH: Array, in_Hx2M: Array, in_bias_2M: Array, out_MxH: Array, out_bias_H: Array
) -> tuple[Array, tuple[Array, ...]]:
    kernel, biases, out, out_bias = (w.astype(x_BxTxH.dtype) for w in (in_Hx2M, in_bias_2M, out_MxH, out_bias_H))
    halves = zip(jnp.split(kernel, 2, axis=-1), jnp.split(biases, 2), strict=True)
    gate_BxTxM, value_BxTxM = (checkpoint_name(x_BxTxH @ half + bias, "product") for half, bias in halves)
    saved = x_BxTxH, in_Hx2M, in_bias_2M, out_MxH, out_bias_H, gate_BxTxM, value_BxTxM
    return _gated(gate_BxTxM, value_BxTxM) @ out + out_bias, saved


def _swiglu_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    x_BxTxH, in_Hx2M, in_bias_2M, out_MxH, out_bias_H, *halves = saved
    hidden_BxTxM, pullback = jax.vjp(_gated, *halves)
    d_halves = pullback(g @ out_MxH.astype(g.dtype).T)
    d_in_BxTx2M = jnp.concatenate(d_halves, axis=-1)
    return (
        d_in_BxTx2M @ in_Hx2M.astype(g.dtype).T,
        _kernel_gradient(x_BxTxH, d_in_BxTx2M, in_Hx2M.dtype),
        jnp.concatenate([d.sum((0, 1), in_bias_2M.dtype) for d in d_halves]),
        _kernel_gradient(hidden_BxTxM, g, out_MxH.dtype),
        g.sum((0, 1), out_bias_H.dtype),
    )


swiglu.defvjp(_swiglu_forward, _swiglu_backward)
