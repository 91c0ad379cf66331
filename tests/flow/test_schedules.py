"""Grids of times: one per sample, for all settings that share a compilation."""

import jax
import numpy as np
import pytest

from elfcli.flow.schedules import even_grid, time_grid


def grid(number, steps, length, schedule="logit_normal"):
    key = jax.random.fold_in(jax.random.key(0), number)
    even = even_grid(schedule, steps, length, 3.0)
    return np.asarray(jax.jit(time_grid)(key, steps, even, -1.5, 0.8))


@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_a_grid_does_not_depend_on_its_array_length(steps):
    alone, shared = grid(3, steps, steps), grid(3, steps, 32)
    np.testing.assert_allclose(shared[: steps + 1], alone, rtol=1e-6)
    assert np.all(shared[steps:] == 1) and alone[0] == 0
    assert np.all(np.diff(alone) > 0)


def test_each_sample_has_its_own_grid_of_the_requested_distribution():
    grids = np.stack([grid(number, 32, 32) for number in range(300)])
    assert len(np.unique(grids[:, 5])) == 300
    logits = np.log(grids[:, 1:-1] / (1 - grids[:, 1:-1]))
    assert abs(logits.mean() + 1.5) < 0.05 and abs(logits.std() - 0.8) < 0.05
    last = 1 - grids[:, -2]
    assert last.std() > 0.05, "the last step differs from sample to sample"


def test_even_times():
    np.testing.assert_array_equal(grid(0, 5, 8, "uniform"), np.float32([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1]))
    np.testing.assert_allclose(grid(0, 4, 4, "shifted"), [0, 0.1, 0.25, 0.5, 1], rtol=1e-6)
    for schedule in ("uniform", "shifted", "logit_normal"):
        np.testing.assert_array_equal(grid(0, 1, 1, schedule), [0, 1])
