"""Grids of times: one per sample, whatever shares the compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elfcli.flow.schedules import time_grid


def grid(number, steps, length, uniform=False):
    key = jax.random.fold_in(jax.random.key(0), number)
    return np.asarray(jax.jit(time_grid, static_argnums=5)(key, steps, uniform, -1.5, 0.8, length))


@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_a_grid_does_not_depend_on_the_room_it_has(steps):
    alone, shared = grid(3, steps, steps), grid(3, steps, 32)
    np.testing.assert_allclose(shared[: steps + 1], alone, rtol=1e-6)
    assert np.all(shared[steps:] == 1) and alone[0] == 0
    assert np.all(np.diff(alone) > 0)


def test_samples_have_grids_of_their_own_of_the_asked_distribution():
    grids = np.stack([grid(number, 32, 32) for number in range(300)])
    assert len(np.unique(grids[:, 5])) == 300
    logits = np.log(grids[:, 1:-1] / (1 - grids[:, 1:-1]))
    assert abs(logits.mean() + 1.5) < 0.05 and abs(logits.std() - 0.8) < 0.05
    last = 1 - grids[:, -2]
    assert last.std() > 0.05, "the last step differs from sample to sample"


def test_even_times():
    np.testing.assert_allclose(grid(0, 5, 8, uniform=True), [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1], atol=1e-7)
    assert jnp.isfinite(grid(0, 1, 1, uniform=True)).all()
