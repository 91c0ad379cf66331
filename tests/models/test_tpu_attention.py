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
from elfcli.models.layers import attention
from elfcli.weights.encoder import read_encoder

T, D = 530, 10  # two blocks of queries; the last one is short


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(tpu_attention.pl, "pallas_call", partial(tpu_attention.pl.pallas_call, interpret=True))


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (2, T, 3, D)) for key in keys]


def error(found, expected) -> float:
    return float(jnp.abs(found - expected).max() / jnp.abs(expected).max())


def test_fused_attention_and_its_gradients_are_exact(arrays):
    *qkv, cotangent = arrays

    def loss(run):
        return lambda *qkv: (run(*qkv) * cotangent).sum()

    def fused(q, k, v):
        return tpu_attention.fused_attention(q, k, v, D**-0.5)

    def plain(*qkv):
        return attention(qkv)

    assert error(fused(*qkv), plain(*qkv)) < 1e-5
    gradients = [jax.grad(loss(run), (0, 1, 2))(*qkv) for run in (fused, plain)]
    assert max(map(error, *gradients)) < 1e-5


def test_frozen_attention_is_exact_with_bias_and_mask(arrays):
    q, k, v, _ = arrays
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
