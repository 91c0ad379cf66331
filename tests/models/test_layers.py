"""Rotary positions against their definition, the rotation of pairs as complex numbers; chunks of positions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elfcli.models import layers
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.gpu_layers import bias_and_mask, float32_logits
from elfcli.models.layers import apply_rope, graphdef_of, interleaved_to_halves, rope_angles

B, N, D = 2, 3, 8


def turned(x_BxTxND, num_unturned: int, theta: float = 10000.0):
    """Return heads whose adjacent pairs (x[2j], x[2j + 1]) are multiplied by exp(i position theta^(-2j / D))."""
    batch, length = x_BxTxND.shape[:2]
    pairs = x_BxTxND.reshape(batch, length, N, D // 2, 2)
    position = np.maximum(np.arange(length) - num_unturned, 0)
    angle = position[:, None] * theta ** (-2 * np.arange(D // 2) / D)
    z = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)[:, None]
    return np.stack([z.real, z.imag], axis=-1).reshape(x_BxTxND.shape)


def ours(x_BxTxND, num_unturned: int):
    """Return the same from the layers, with pairs D/2 apart."""
    heads = interleaved_to_halves(jnp.asarray(x_BxTxND, jnp.float32), N).reshape(*x_BxTxND.shape[:2], N, D)
    position = jnp.maximum(jnp.arange(x_BxTxND.shape[1]) - num_unturned, 0)
    return np.asarray(apply_rope(heads, *rope_angles(position, D)))


@pytest.mark.parametrize(("num_unturned", "length"), [(0, 7), (4, 9), (3, 1), (0, 1000)])
def test_turning_is_complex_multiplication(num_unturned, length):
    x = np.random.default_rng(0).normal(size=(B, num_unturned + length, N * D))
    expected = turned(x, num_unturned).reshape(*x.shape[:2], N, D // 2, 2)
    expected = np.concatenate([expected[..., 0], expected[..., 1]], axis=-1)
    np.testing.assert_allclose(ours(x, num_unturned), expected, atol=2e-4 if length > 100 else 2e-6)


def test_scores_depend_only_on_the_distance():
    """The product of a rotated query and key is the same at all positions with the same distance."""
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, N * D))
    turned_q, turned_k = (ours(np.repeat(x, 20, axis=1), 0)[0] for x in (q, k))
    scores = np.einsum("tnd,snd->nts", turned_q, turned_k)
    for distance in range(-5, 6):
        along = np.stack([np.diagonal(head, distance) for head in scores])
        np.testing.assert_allclose(along, along[:, :1].repeat(along.shape[1], axis=1), atol=1e-5)
    assert np.abs(np.diagonal(scores[0], 1)[0] - np.diagonal(scores[0], -1)[0]) > 1e-3, (
        "the sign of the distance matters"
    )


def test_interleaved_to_halves_reorders_each_head():
    assert interleaved_to_halves(jnp.arange(8)[None], 2).tolist() == [[0, 2, 1, 3, 4, 6, 5, 7]]
    assert interleaved_to_halves(jnp.arange(8)[None], 1).tolist() == [[0, 2, 4, 6, 1, 3, 5, 7]]


def test_chunks_of_positions_equal_the_whole(monkeypatch):
    """Tokens and likelihoods are computed in chunks of positions; the last chunk may be short."""
    features = jax.random.normal(jax.random.key(0), (3, 7, 4))
    weights = jax.random.normal(jax.random.key(1), (4, 50))
    whole = jnp.argmax(features @ weights, axis=-1)
    monkeypatch.setattr(layers, "MAX_LOGITS", 3 * 50 * 2)  # two positions at once
    chunked = jax.jit(lambda f: layers.map_position_chunks(lambda part: jnp.argmax(part @ weights, axis=-1), 50, f))
    np.testing.assert_array_equal(chunked(features), whole)
    assert "while" in chunked.lower(features).compile().as_text()


def test_argmax_over_a_large_vocabulary_needs_less_than_a_gibibyte():
    """64 texts of 1,024 tokens over T5's vocabulary: all logits would take 8 GiB."""
    features = jax.ShapeDtypeStruct((64, 1024, 32), jnp.float32)
    weights = jax.ShapeDtypeStruct((32, 32100), jnp.float32)
    decode = jax.jit(lambda f, w: layers.map_position_chunks(lambda part: jnp.argmax(part @ w, axis=-1), 32100, f))
    assert decode.lower(features, weights).compile().memory_analysis().temp_size_in_bytes < 2**30


def plain_instead_of_cudnn(monkeypatch):
    """Let the plain computation stand in for cuDNN's kernel, with the conditions under which JAX calls it."""
    plain = jax.nn.dot_product_attention

    def stand_in(q, k, v, bias, mask, *, scale, implementation):
        assert implementation == "cudnn" and q.shape[-1] % 8 == 0
        assert all(array is None or array.shape[-2:] == (q.shape[1], k.shape[1]) for array in (bias, mask))
        return plain(q, k, v, bias, mask, scale=scale)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)


@pytest.mark.parametrize("masked", [False, True])
def test_heads_padded_for_cudnn_are_exact(monkeypatch, masked):
    qkv = jax.random.normal(jax.random.key(0), (3, 2, 7, 3, 66))
    mask = jnp.arange(7) < jnp.asarray([4, 7])[:, None, None, None] if masked else None
    expected = layers.attention(qkv, mask)
    plain_instead_of_cudnn(monkeypatch)
    np.testing.assert_allclose(layers.attention(qkv, mask, kernel="cudnn"), expected, atol=1e-6)


def test_a_combined_bias_is_bias_and_mask(monkeypatch):
    qkv = jax.random.normal(jax.random.key(0), (3, 2, 7, 3, 8))
    bias, mask = jax.random.normal(jax.random.key(1), (1, 3, 7, 7)), jnp.arange(7) < jnp.full((2, 1, 7, 1), 4)
    expected = layers.attention(qkv, mask, bias)
    both, none = bias_and_mask(bias, mask, "cudnn")
    assert none is None and both.shape == (2, 3, 7, 7)
    plain_instead_of_cudnn(monkeypatch)
    np.testing.assert_allclose(layers.attention(qkv, None, both, kernel="cudnn"), expected, atol=1e-6)


def test_a_network_for_gpus_computes_the_same(monkeypatch):
    """Blocks written out and separate products change neither outputs nor gradients."""
    shape = ElfShape(latent_dim=8, vocab_size=50, depth=2, hidden_size=36, num_heads=2, bottleneck_dim=8, remat="dots")
    params = init_params(shape, jax.random.key(0))
    x, t = jax.random.normal(jax.random.key(1), (3, 7, 16)), jnp.full(3, 0.5)

    def value_and_gradients(shape):
        def loss(params):
            model = nnx.merge(graphdef_of(ELF, shape), params)
            return jnp.square(model.logits(model(x, t, t, t))).sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    expected = value_and_gradients(shape)
    plain_instead_of_cudnn(monkeypatch)
    results = value_and_gradients(replace(shape, unroll=True, attention="cudnn"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), results, expected)


def test_factors_of_the_gradient_of_logits_keep_their_type():
    x, kernel = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 5))
    value, pull = jax.vjp(float32_logits, x, kernel)
    dx, dkernel = pull(jnp.ones_like(value))
    assert (value.dtype, dx.dtype, dkernel.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    assert (dx == 5).all() and (dkernel == 6).all()
    text = jax.jit(jax.grad(lambda w: float32_logits(x, w).sum())).lower(kernel).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and all("xbf16>, tensor" in line for line in products)
