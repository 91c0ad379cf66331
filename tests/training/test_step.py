"""One optimizer step: what is accumulated is averaged, and what is not finite is skipped. No run, no data folder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elfcli.config.resolve import resolve
from elfcli.models.build import elf_shape
from elfcli.parallel.mesh import make_mesh, put_batch, replicate
from elfcli.training.step import init_state, make_train_step, step_rates
from elfcli.weights.encoder import load_encoder

VOCAB, B, S = 20, 4, 6
TINY = ["depth=1", "hidden_size=16", "num_heads=2", "bottleneck_dim=4", "embedding_dim=4", "max_length=6",
        "max_input_length=0", "batch_size=4", "encoder_model_name=embedding", "ema_decay=0.5"]  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    """(state before the first step, function from state and token ids (A, B, S) to the state after a step).

    Gradient descent at rate 1, so that a step is minus the gradient: Adam and Muon would hide its size.
    """
    config = resolve(sets=TINY, environ={}).config
    encoder = load_encoder(config.encoder, VOCAB)
    shape, mesh = elf_shape(config, encoder.dim, VOCAB), make_mesh(devices=jax.devices()[:1])
    tx = optax.with_extra_args_support(optax.sgd(1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elfcli.training.step.make_optimizer", lambda cfg, dtype: tx)
        step = make_train_step(config, shape, encoder, mesh)

    def after(state, ids_AxBxS):
        masks = {"cond_mask": np.zeros(ids_AxBxS.shape, bool), "valid_mask": np.ones(ids_AxBxS.shape, bool)}
        batch = put_batch({"input_ids": ids_AxBxS} | masks, mesh)
        return step(jax.tree.map(jnp.copy, state), replicate(encoder.params, mesh), batch, step_rates(config, 1.0))

    return init_state(shape, tx, 0), after


def ids(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(2, VOCAB, (count, B, S)).astype(np.int32)


def moved(before, after) -> np.ndarray:
    return np.concatenate(
        [np.ravel(b - a) for a, b in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)]
    )


def test_accumulated_gradients_are_averaged(trained):
    """A step over three batches moves the weights by the mean of what each alone, with the same draws, does."""
    state, after = trained
    batches, key = ids(3), jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    alone = [
        moved(state, after(state._replace(key=jax.random.key_data(key), step=jnp.int32(index)), batches[index][None]))
        for index in range(3)
    ]
    together = after(state, batches)
    assert min(np.abs(alone[0] - other).max() for other in alone[1:]) > 0.01, "the batches differ"
    np.testing.assert_allclose(moved(state, together), np.mean(alone, axis=0), atol=1e-6)
    total, count = together.totals["grad_norm"]
    assert count == 1 and total == pytest.approx(np.linalg.norm(np.mean(alone, axis=0)), rel=1e-5)


def test_the_average_follows_by_its_decay(trained):
    state, after = trained
    found = after(state, ids(1))
    for old, new, average in zip(*map(jax.tree.leaves, (state.params, found.params, found.ema)), strict=True):
        np.testing.assert_allclose(average, (old + new) / 2, atol=1e-6)


def test_a_step_that_is_not_finite_counts_and_changes_nothing(trained):
    state, after = trained
    weights = jax.tree.map(jnp.copy, state.params)
    weights["unembed_bias"] = weights["unembed_bias"].at[0].set(jnp.nan)
    broken = state._replace(params=weights)
    found = after(broken, ids(1))
    for old, new in zip(*map(jax.tree.leaves, ((weights, state.ema), (found.params, found.ema))), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (int(found.step), int(found.skipped_in_a_row)) == (1, 1)
    assert found.totals["skipped"].tolist() == [1, 1] and found.totals["loss"].tolist() == [0, 0]
    assert int(after(found._replace(params=state.params), ids(1)).skipped_in_a_row) == 0
