"""Muon, AdamW and learning rates against optax and against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from elfcli.config.schema import OptimizationSettings
from elfcli.optimizer import learning_rates, make_optimizer, orthogonalize, scale_by_muon

SHAPES = {"wide": (6, 10), "tall": (10, 6), "square": (8, 8), "bias": (6,)}
STEPS = 4


def random_tree(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def weights_after(tx: optax.GradientTransformation, params, rates=None):
    """Weights after a few steps, each with other gradients, some of which are clipped. rates: of our optimizers."""
    state = tx.init(params)
    for step in range(STEPS):
        gradients = jax.tree.map(lambda g, step=step: 0.02 * 10**step * g, random_tree(step + 1))
        more = {} if rates is None else {"rate": jnp.float32(rates[step])}
        updates, state = tx.update(gradients, state, params, **more)
        params = optax.apply_updates(params, updates)
    return params


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_optax(weight_decay):
    """Gradients are clipped; matrices use Muon and the rest Nesterov's Adam, at a changing rate."""
    cfg = OptimizationSettings(
        optimizer="muon", lr=0.02, weight_decay=weight_decay, clip_norm=1.0, lr_schedule="cosine"
    )
    rates = learning_rates(cfg, 0.02, 2, 10)
    settings = {"weight_decay": weight_decay, "adam_weight_decay": weight_decay, "adam_b2": 0.999}
    theirs = optax.contrib.muon(lambda step: jnp.asarray(rates)[step], beta=0.95, nesterov=True, **settings)
    params = random_tree(0)
    expected = weights_after(optax.chain(optax.clip_by_global_norm(1.0), theirs), params)
    found = weights_after(make_optimizer(cfg), params, rates)
    for name in SHAPES:
        moved = float(jnp.abs(expected[name] - params[name]).max())
        assert moved > 0.01
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5 * moved, rtol=1e-6, err_msg=name)


def test_layers_of_a_stack_are_independent():
    stack = jnp.stack([random_tree(seed)["wide"] for seed in range(3)])
    tx = scale_by_muon()
    together, _ = tx.update(stack, tx.init(stack))
    for layer, found in zip(stack, together, strict=True):
        alone, _ = tx.update(layer, tx.init(layer))
        np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("name", ["wide", "tall", "square"])
def test_singular_values_move_towards_one(name):
    """Singular vectors stay; singular values approach 1, times sqrt(n / m) for wide matrices."""
    matrix = random_tree(5)[name]
    u, sizes, v = np.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix)
    m, n = matrix.shape
    new = np.diagonal(u.T @ np.asarray(found) @ v.T) / max(1, n / m) ** 0.5
    assert np.all((new > 0.6) & (new < 1.3)) and sizes[0] / sizes[-1] > 2
    np.testing.assert_allclose(found, (u * new) @ v * max(1, n / m) ** 0.5, atol=1e-4)


def test_adamw_equals_optax():
    cfg = OptimizationSettings(optimizer="adamw", weight_decay=0.1, adam_b1=0.8, adam_b2=0.95, clip_norm=0.5)
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.01, b1=0.8, b2=0.95, weight_decay=0.1))
    params = random_tree(0)
    found, expected = weights_after(make_optimizer(cfg), params, [0.01] * STEPS), weights_after(theirs, params)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-7)


def test_learning_rates_rise_from_zero_and_fall_to_the_least():
    cosine = learning_rates(OptimizationSettings(lr_schedule="cosine", lr=0.5, min_lr=0.1), 0.5, 4, 12)
    assert cosine.dtype == np.float32 and len(cosine) == 12
    assert cosine[[0, 1, 4, 8]].tolist() == pytest.approx([0, 0.125, 0.5, 0.3]) and 0.1 < cosine[11] < 0.13
    constant = learning_rates(OptimizationSettings(lr_schedule="constant", lr=0.5, min_lr=0.1), 0.5, 4, 12)
    assert constant[[0, 2, 4, 11]].tolist() == pytest.approx([0, 0.25, 0.5, 0.5])


def test_equal_settings_give_the_same_optimizer():
    """Programs that use it are then compiled once, whatever the run's rates."""
    assert make_optimizer(OptimizationSettings(lr=0.1)) is make_optimizer(OptimizationSettings(lr=0.2))
