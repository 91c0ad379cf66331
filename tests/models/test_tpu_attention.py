"""The TPU kernels, interpreted on the CPU, against plain attention, and their cost estimates against XLA's."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import GOLDENS

from elfcli.models import tpu_attention
from elfcli.models.encoder import encode_with
from elfcli.models.layers import apply_rope, attention, rms_norm, rope_angles
from elfcli.weights.encoder import read_encoder

T, D = 530, 10  # two blocks of queries; the last one is short


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(tpu_attention.pl, "pallas_call", partial(tpu_attention.pl.pallas_call, interpret=True))


@pytest.fixture(scope="module")
def arrays():
    return [jax.random.normal(key, (2, T, 3, D)) for key in jax.random.split(jax.random.key(0), 3)]


def error(found, expected) -> float:
    return float(jnp.abs(found - expected).max() / jnp.abs(expected).max())


@pytest.mark.parametrize("positions", [T, (2, T)], ids=["shared", "per-example"])
def test_projected_attention_and_its_gradients_are_exact(positions):
    keys = jax.random.split(jax.random.key(0), 6)
    product, cotangent = jax.random.normal(keys[0], (2, 9 * D, T)), jax.random.normal(keys[1], (2, T, 3 * D))
    bias, weights = jax.random.normal(keys[2], (9 * D,)), [1 + 0.3 * jax.random.normal(k, (D,)) for k in keys[3:5]]
    rope = rope_angles(jax.random.uniform(keys[5], np.atleast_1d(positions), maxval=100), D)

    def fused(product, bias, weights):
        return tpu_attention.projected_attention(product, bias, weights, rope, 1e-6)

    def plain(product, bias, weights):
        qkv = product.swapaxes(1, 2) + bias
        q, k, v = (part.reshape(2, T, 3, D) for part in jnp.split(qkv, 3, axis=-1))
        q, k = (apply_rope(rms_norm(a, weight, 1e-6), *rope) for a, weight in zip((q, k), weights, strict=True))
        return attention((q, k, v)).reshape(2, T, -1)

    (found, pullback), (expected, plain_pullback) = (jax.vjp(run, product, bias, weights) for run in (fused, plain))
    assert error(found, expected) < 1e-5
    gradients = zip(*(jax.tree.leaves(back(cotangent)) for back in (pullback, plain_pullback)), strict=True)
    assert max(error(*pair) for pair in gradients) < 1e-5


def test_frozen_attention_is_exact_with_bias_and_mask(arrays):
    q, k, v = arrays
    mask = jax.random.bernoulli(jax.random.key(5), 0.7, (2, 1, T, T))
    bias = jax.random.normal(jax.random.key(6), (1, 3, T, T))
    found = tpu_attention.frozen_attention(q, k, v, mask, bias, 1.0)
    assert error(found, attention((q, k, v), mask, bias, scale=1.0)) < 1e-5


def test_each_layer_of_umt5_uses_its_own_bias_in_the_kernel():
    folder = GOLDENS / "encoders" / "umt5"
    golden, (shape, params) = np.load(folder / "expected.npz"), read_encoder(str(folder))
    mask = np.broadcast_to(golden["mask"][:, None], (2, 14, 14))
    found = encode_with(replace(shape, attention="tpu"))(params, golden["ids"], mask)
    assert error(found[golden["mask"]], golden["out"][golden["mask"]]) < 1e-5


def test_the_kernel_counts_its_work_as_xla_counts_plain_attention():
    heads = jax.ShapeDtypeStruct((2, T, 3, 64), jnp.float32)
    plain = jax.jit(attention).lower((heads, heads, heads)).compile().cost_analysis()["flops"]
    counted = 2 * 3 * T * T * (2 * 64 * 2 + tpu_attention.ELEMENTWISE)
    np.testing.assert_allclose(counted, plain, rtol=0.03)


def test_long_sequences_use_plain_attention():
    assert tpu_attention.fits_vmem(1, 4096)
    assert not tpu_attention.fits_vmem(1, 6000)
