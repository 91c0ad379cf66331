"""The network against itself with texts at other positions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from elfcli.config.schema import ObjectiveSettings
from elfcli.flow import objective, sampler
from elfcli.models import layers
from elfcli.models.elf import ELF, ElfShape, abstract_params, init_params
from elfcli.models.layers import graphdef_of

B, S, E, V, P = 3, 12, 4, 11, 7  # P: position of the first text token
SHAPE = ElfShape(E, V, depth=2, hidden_size=16, num_heads=2, bottleneck_dim=4, num_time_tokens=1)
START = np.array([0, 2, 5])
LENGTH = 5  # of texts


def network(text_position):
    shape = ElfShape(**{**vars(SHAPE), "text_position": text_position})
    return nnx.merge(graphdef_of(ELF, shape), init_params(SHAPE, jax.random.key(0)))


def test_texts_at_one_position_are_conditions_followed_by_a_gap_that_nothing_attends_to():
    x, one = np.random.default_rng(0).normal(size=(B, S, 2 * E)).astype(np.float32), jnp.ones(B)
    apart, index = np.zeros_like(x), np.arange(S)
    mask = (index < START[:, None]) | (index >= P)
    for row, start in enumerate(START):
        apart[row, :start], apart[row, P:] = x[row, :start], x[row, start : start + LENGTH]
    together = network(P)
    embedded = together.embed(x[:, : P + LENGTH], one / 2, one, 0 * one)
    filled = index < START[:, None] + LENGTH
    found = together.transform(*embedded, jnp.asarray(START), mask_BxS=filled)
    plain = network(None)
    expected = plain.transform(*plain.embed(apart, one / 2, one, 0 * one), mask_BxS=mask)
    for row, start in enumerate(START):
        np.testing.assert_allclose(found[row, start : start + LENGTH], expected[row, P:], atol=2e-5)
        np.testing.assert_allclose(found[row, :start], expected[row, :start], atol=2e-5)
    with np.testing.assert_raises(AssertionError):
        np.testing.assert_allclose(plain.transform(*embedded, jnp.asarray(START), mask_BxS=filled), found, atol=1e-3)


def test_objective_and_sampler_pass_the_start_of_texts_to_the_network():
    told, N = [], len(START)

    class Model:
        shape = SHAPE

        def __call__(self, x, t, w, decode, start, key=None):
            told.append(np.asarray(start))
            return jnp.zeros((*x.shape[:2], 16))

        def denoise(self, features):
            return features[..., :E]

        def cross_entropy(self, features, ids):
            return features[..., 0]

        def tokens(self, features):
            return features[..., 0]

    cond, x0 = jnp.arange(S) < START[:, None], jnp.ones((N, S, E))
    batch = objective.Batch(jnp.zeros((1, N, S), int), cond[None], ~cond[None], x0[None])
    cfg = ObjectiveSettings(decoder_prob=0.34)
    draws = objective.draw(jax.random.key(0), cfg, (1, N, S, E))
    objective.split_loss(Model(), batch, draws, cfg, objective.branch_sizes(N, cfg))
    condition, guidance = sampler.Condition(cond, x0), sampler.Guidance(jnp.float32(2), jnp.float32(1))
    sampler.make_predict(Model(), condition, guidance, 0.05, use_cfg=True)(x0, x0, jnp.zeros(N))
    sampler.decode(Model(), x0, condition, guidance)
    first_pass, shared_pass, *sampled = told
    assert first_pass.tolist() == START[1:2].tolist() and len(sampled) == 3
    assert all(start.tolist() == START.tolist() for start in (shared_pass, *sampled))


def cross_entropy_and_gradients(shape, features, ids):
    """Return a jitted function of the parameters."""

    def loss(params, features):
        entropy = nnx.merge(graphdef_of(ELF, shape), params).cross_entropy(features, ids)
        return (entropy * jnp.arange(1.0, ids.shape[-1] + 1)).mean()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def test_cross_entropy_in_chunks_is_the_same_with_less_memory(monkeypatch):
    """64 texts of 1,024 tokens over T5's vocabulary: logits and their gradients would take 16 GiB."""
    shape = ElfShape(latent_dim=8, vocab_size=50, depth=1, hidden_size=16, num_heads=2, bottleneck_dim=4)
    params = init_params(shape, jax.random.key(0))
    features, ids = jax.random.normal(jax.random.key(1), (2, 3, 7, 16)), jnp.arange(42).reshape(2, 3, 7)
    whole = cross_entropy_and_gradients(shape, features, ids)(params, features)
    monkeypatch.setattr(layers, "MAX_LOGITS", 6 * 50 * 2)  # two positions at once; the last chunk is short
    chunked = cross_entropy_and_gradients(shape, features, ids)(params, features)
    for ours, theirs in zip(jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * float(jnp.abs(theirs).max()))
    monkeypatch.undo()
    large = replace(shape, vocab_size=32100)
    features, ids = (jax.ShapeDtypeStruct((4, 16, 1024, *rest), dtype) for rest, dtype in (((16,), float), ((), int)))

    def gradient(params, features, ids):
        return cross_entropy_and_gradients(large, features, ids)(params, features)

    compiled = jax.jit(gradient).lower(abstract_params(large), features, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**30
