"""The TPU kernels, interpreted on the CPU, against plain attention, and their cost estimates against XLA's."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import GOLDENS

from elfcli.models import tpu_attention
from elfcli.models.elf import Block, ElfShape
from elfcli.models.encoder import encode_with
from elfcli.models.layers import REMAT_POLICIES, apply_rope, attention, graphdef_of, rms_norm, rope_angles
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


def drawn(positions, size=D):
    """Return (product, bias, weights) and rotary angles."""
    keys = jax.random.split(jax.random.key(0), 5)
    product, bias = jax.random.normal(keys[0], (2, 9 * size, T)), jax.random.normal(keys[1], (9 * size,))
    weights = [1 + 0.3 * jax.random.normal(key, (size,)) for key in keys[2:4]]
    return (product, bias, weights), rope_angles(jax.random.uniform(keys[4], positions, maxval=100), size)


def plain(rope, product, bias, weights):
    q, k, v = (x.reshape(2, T, -1, len(weights[0])) for x in jnp.split(product.swapaxes(1, 2) + bias, 3, axis=-1))
    q, k = (apply_rope(rms_norm(a, weight, 1e-6), *rope) for a, weight in zip((q, k), weights, strict=True))
    return attention((q, k, v)).reshape(2, T, -1)


def fused(rope, product, bias, weights):
    return tpu_attention.projected_attention(product, bias, weights, rope, 1e-6)


@pytest.mark.parametrize("positions", [(T,), (2, T)], ids=["shared", "per-example"])
def test_projected_attention_and_its_gradients_are_exact(positions):
    arrays, rope = drawn(positions)
    (found, pullback), (expected, plain_pullback) = (jax.vjp(partial(f, rope), *arrays) for f in (fused, plain))
    assert error(found, expected) < 1e-5
    cotangent = jax.random.normal(jax.random.key(1), found.shape)
    gradients = zip(*(jax.tree.leaves(back(cotangent)) for back in (pullback, plain_pullback)), strict=True)
    assert max(error(*pair) for pair in gradients) < 1e-5


def test_a_block_with_kernel_and_products_for_tpus_is_the_same():
    shape = ElfShape(latent_dim=8, vocab_size=9, depth=1, hidden_size=24, num_heads=2)
    keys = jax.random.split(jax.random.key(0), 4)
    state = nnx.state(Block(shape, rngs=nnx.Rngs(0)))
    state = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(keys[0], p.shape), state)
    x, rope = jax.random.normal(keys[1], (2, 20, 24)), rope_angles(jax.random.uniform(keys[2], (2, 20), maxval=9), 12)
    cotangent = jax.random.normal(keys[3], x.shape)

    def loss(shape, state, x):
        block = nnx.merge(graphdef_of(Block, shape), state)
        run = jax.checkpoint(lambda x: block(x, rope, None, 1.0, None), policy=REMAT_POLICIES["dots"])
        return (run(x) * cotangent).sum()

    results = [
        jax.jit(jax.value_and_grad(partial(loss, shape), argnums=(0, 1)))(state, x)
        for shape in (replace(shape, attention="tpu"), shape)
    ]
    assert max(jax.tree.leaves(jax.tree.map(error, *results))) < 1e-5


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


def test_kernels_count_their_work_as_xla_counts_plain_attention(monkeypatch):
    arrays, rope = drawn((T,), size=64)
    work, call = {}, tpu_attention.pl.pallas_call

    def recorded(*arguments, name, cost_estimate, **settings):
        work[name] = cost_estimate
        return call(*arguments, name=name, cost_estimate=cost_estimate, **settings)

    def gradient(f, *arrays):
        return jax.grad(lambda *arrays: f(rope, *arrays).sum(), (0, 1, 2))(*arrays)

    monkeypatch.setattr(tpu_attention.pl, "pallas_call", recorded)
    jax.eval_shape(partial(gradient, fused), *arrays)
    functions = partial(plain, rope), partial(gradient, plain)
    forward, backward = (jax.jit(f).lower(*arrays).compile().cost_analysis()["flops"] for f in functions)
    assert work["attention"].flops == pytest.approx(forward, rel=0.02)
    assert work["attention_backward"].flops == pytest.approx(backward, rel=0.03)
    hidden, shared = 4 * 2 * 3 * 64 * T, 4 * (3 * 64 * 5 + 64 * T)  # bytes of (B, H, T); of parameters and angles
    assert work["attention"].bytes_accessed == 3 * hidden + shared + hidden + hidden // 64
    dparams = 4 * 2 * 3 * 64 * 5
    assert work["attention_backward"].bytes_accessed == 2 * 3 * hidden + shared + 2 * hidden + hidden // 64 + dparams


def test_long_sequences_use_plain_attention():
    assert tpu_attention.fits_vmem(1, 5120, 2 * 64)
    assert not tpu_attention.fits_vmem(1, 6000, 2 * 64)
    assert not tpu_attention.fits_vmem(1, 5120, 4 * 64)
