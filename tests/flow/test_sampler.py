"""The solvers against equations with closed solutions, without network and goldens."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elfcli.flow.known_text import guided_by
from elfcli.flow.objective import velocity
from elfcli.flow.sampler import Condition, euler, integrate, multistep, refine, solve

B, S, E = 2, 3, 4
Z = jnp.asarray(np.random.default_rng(0).normal(size=(B, S, E)), jnp.float32)
NOISE = np.random.default_rng(1).normal(size=(40, B, S, E)).astype(np.float32)
NOTHING = Condition(jnp.zeros((B, S), bool), jnp.zeros((B, S, E)))
UNEVEN = np.array([0.0, 0.03, 0.11, 0.4, 0.55, 0.9, 1.0])


def solved(rate, grid, gamma: float = 0.0, condition: Condition = NOTHING, noise=NOISE):
    """Return latents at time 1 of dz/dt = rate(t) z and the last estimate, which is the time of its call."""

    def predict(z, estimate, t_B):
        t = t_B[:, None, None]
        return jnp.broadcast_to(t, z.shape), condition.zero(rate(t) * z)

    noise = jnp.asarray(noise)
    found = solve(predict, Z, condition, jnp.tile(jnp.asarray(grid, jnp.float32), (B, 1)), lambda i: noise[i], gamma)
    return [np.asarray(array) for array in found]


def test_each_euler_step_multiplies_by_one_plus_the_rate_times_the_step():
    z, estimate = solved(lambda t: 1.5 - t, UNEVEN)
    factor = np.prod(1 + (1.5 - UNEVEN[:-1]) * np.diff(UNEVEN))
    np.testing.assert_allclose(z, factor * np.asarray(Z), rtol=1e-6)
    np.testing.assert_allclose(estimate, UNEVEN[-2], rtol=1e-6)


def test_the_error_halves_as_the_steps_double():
    """dz/dt = (1.5 - t) z maps z to z exp(1)."""
    errors = []
    for steps in (16, 32, 64, 128):
        z, _ = solved(lambda t: 1.5 - t, np.linspace(0, 1, steps + 1))
        errors.append(np.abs(z - np.e * np.asarray(Z)).max())
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert errors[-1] < 0.02 * np.abs(Z).max() and np.all((ratios > 1.8) & (ratios < 2.2))


def towards_a_moving_estimate(step_of, grid):
    """Return latents at time 1 for a network whose estimate is half way from its input to a moving point."""

    def predict(z, given, t_B):
        x = jnp.broadcast_to(jnp.sin(2 * t_B + 0.3)[:, None, None], z.shape)
        x = x + 0.5 * (given - x)
        return x, (x - z) / (1 - t_B)[:, None, None]

    grids = jnp.tile(jnp.asarray(grid, jnp.float32), (B, 1))
    return np.asarray(integrate(step_of(predict, NOTHING, grids), Z, NOTHING, grids).z_BxSxE)


def test_the_multistep_solver_is_of_second_order_and_eulers_of_first():
    """The estimate depends on the last one and steps are uneven. The flow ends at x of time 1."""
    errors = {}
    for steps in (32, 64, 128):
        u = np.linspace(0, 1, steps + 1)
        grid = u + 0.1 * np.sin(2 * np.pi * u)
        first = towards_a_moving_estimate(lambda *a: euler(*a, lambda i: jnp.zeros_like(Z), 0.0), grid)
        second = towards_a_moving_estimate(multistep, grid)
        errors[steps] = [np.abs(z - np.sin(2.3)).max() for z in (first, second)]
    for few, more in ((32, 64), (64, 128)):
        ratio = np.array(errors[few]) / np.array(errors[more])
        assert 1.7 < ratio[0] < 2.4 and ratio[1] > 3.4, (errors, ratio)
    assert errors[32][1] < errors[64][0]


def test_the_multistep_solver_keeps_the_condition_and_takes_one_or_two_steps_as_eulers():
    condition = Condition(jnp.zeros((B, S), bool).at[:, 0].set(True), jnp.full((B, S, E), 7.0))
    goal = jnp.asarray(NOISE[-1])

    def predict(z, given, t_B):
        np.testing.assert_array_equal(given[:, 0], 7.0)
        x = condition.keep(goal + t_B[:, None, None] + 0.0 * given)
        return x, condition.zero((x - z) / (1 - t_B)[:, None, None])

    for grid in ([0, 1.0], [0, 0.4, 1.0]):
        grids = jnp.tile(jnp.asarray(grid, jnp.float32), (B, 1))
        with jax.disable_jit():
            z = integrate(multistep(predict, condition, grids), Z, condition, grids).z_BxSxE
            plain, _ = solve(predict, Z, condition, grids, lambda i: jnp.zeros_like(Z), 0.0)
        np.testing.assert_allclose(z, plain, rtol=1e-6)
        np.testing.assert_array_equal(z[:, 0], 7.0)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_the_velocity_towards_an_estimate_arrives_there(gamma):
    """The last step covers the remaining distance, for any start and noise."""
    goal = jnp.asarray(NOISE[-1])

    def predict(z, estimate, t_B):
        return goal, velocity(goal, z, t_B, 0.05)

    grid = jnp.tile(jnp.asarray(UNEVEN, jnp.float32), (B, 1))
    z, estimate = solve(predict, Z, NOTHING, grid, lambda i: jnp.asarray(NOISE)[i], gamma)
    np.testing.assert_allclose(z, goal, atol=1e-5)
    np.testing.assert_array_equal(estimate, goal)


@pytest.mark.parametrize("gamma", [0.7, 1.5, 100.0])
def test_sde_steps_mix_in_noise_and_go_back_in_time(gamma):
    """The recurrence written out: keep a share, move its time back, then step; the last step is the ODE's."""
    z = np.asarray(Z, np.float64)
    for i, (t, t_next) in enumerate(pairwise(UNEVEN)):
        keep = 1.0 if t_next == 1 else max(1 - gamma * (t_next - t), 0.0)
        z = keep * z + (1 - keep) * NOISE[i]
        z = z + (t_next - keep * t) * (1.5 - keep * t) * z
    found, _ = solved(lambda t: 1.5 - t, UNEVEN, gamma)
    np.testing.assert_allclose(found, z, rtol=2e-5, atol=1e-5)


def test_the_last_step_takes_no_noise():
    last = len(UNEVEN) - 2
    louder = NOISE.copy()
    louder[last:] *= 1e20
    quiet, loud = (solved(lambda t: 1.5 - t, UNEVEN, 1.5, noise=noise)[0] for noise in (NOISE, louder))
    np.testing.assert_array_equal(quiet, loud)
    louder[last - 1] += 1
    assert np.abs(solved(lambda t: 1.5 - t, UNEVEN, 1.5, noise=louder)[0] - quiet).max() > 0.01


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_a_grid_may_have_entries_after_one(gamma):
    longer = np.concatenate([UNEVEN, [1.0, 7.0, np.nan]])
    for one, other in zip(solved(jnp.cos, UNEVEN, gamma), solved(jnp.cos, longer, gamma), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_the_condition_does_not_change(gamma):
    mask = jnp.asarray([[True, False, False], [True, True, False]])
    condition = Condition(mask, jnp.full((B, S, E), 0.25))
    z, _ = solved(jnp.cos, UNEVEN, gamma, condition)
    free, _ = solved(jnp.cos, UNEVEN, gamma)
    np.testing.assert_array_equal(z[mask], 0.25)
    np.testing.assert_array_equal(z[~mask], free[~mask])


@pytest.mark.parametrize(("resample", "seen"), [(False, (1, 1, 1)), (True, (1, 5, 9))])
def test_a_refinement_pass_sees_the_noise_and_the_last_estimate_at_time_zero(resample, seen):
    """Noise i is 4 i + 1 and that of the start 1, so that x = noise + 10 (last x) + 100 t shows what a pass saw."""
    condition = Condition(jnp.zeros((B, S), bool).at[:, 0].set(True), jnp.full((B, S, E), 7.0))

    def predict(z, estimate, t_B):
        return condition.keep(z + 10 * estimate + 100 * t_B[:, None, None]), None

    grids = jnp.tile(jnp.linspace(0, 1, 4), (B, 1))
    step = refine(predict, condition, lambda i: jnp.full((B, S, E), 4.0 * jnp.maximum(i, 0) + 1), resample)
    z = np.asarray(integrate(step, Z, condition, grids).z_BxSxE)
    assert (z[:, 0] == 7).all() and (z[:, 1:] == 100 * seen[0] + 10 * seen[1] + seen[2]).all()


def test_known_latents_pull_those_that_depend_on_them():
    """Two positions of normal latents with correlation 0.8, whose exact estimate is linear; the first is known."""
    rows, scale, covariance = 64, 0.7, jnp.asarray([[1, 0.8], [0.8, 1]])
    noise = jax.random.normal(jax.random.key(0), (34, rows, 2, E)) * scale
    latents = jnp.zeros((rows, 2, E)).at[:, 0].set(jax.random.normal(jax.random.key(1), (rows, E)))
    known = Condition(jnp.broadcast_to(jnp.asarray([True, False]), (rows, 2)), latents)
    nothing = Condition(jnp.zeros((rows, 2), bool), jnp.zeros((rows, 2, E)))
    grid = jnp.tile(jnp.linspace(0, 1, 33), (rows, 1))

    def predict(z, estimate, t_B):
        t = t_B[:, None, None]
        x = t * covariance @ jnp.linalg.inv(t**2 * covariance + ((1 - t) * scale) ** 2 * jnp.eye(2)) @ z
        return x, velocity(x, z, t_B, 1e-6)

    def slope(network):
        step = euler(network, nothing, grid, lambda i: noise[i], 1.0)
        z = integrate(step, noise[-1], nothing, grid).z_BxSxE
        return z, float(jnp.sum(z[:, 1] * latents[:, 0]) / jnp.sum(latents[:, 0] ** 2))

    z, pulled = slope(guided_by(predict, known, scale, 1e-6))
    np.testing.assert_allclose(z[:, 0], latents[:, 0], atol=1e-5)
    assert abs(slope(predict)[1]) < 0.15 and 0.7 < pulled < 1.0, pulled
