"""Sampling (paper, sampling): solve the flow from noise to latents, then decode the latents into tokens.

The solvers do not depend on a network: they take a function `Predict` and a grid of times.
Shapes: B batch, S sequence, E latent width, M times.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elfcli.flow.objective import Pair, velocity, with_estimate

MAX_GROWTH = 2.0
Predict = Callable[[Array, Array, Array], Pair]  # (z, previous estimate, t) -> (estimate, velocity)
Noise = Callable[[Any], Array]  # index of the step -> scaled normal noise (B, S, E)


class Guidance(NamedTuple):
    """Guidance scales, which are traced so that all values share one compilation."""

    cfg: Array  # classifier-free guidance of the condition
    w: Array  # self-conditioning guidance


class Condition(NamedTuple):
    """The condition of each example: latents at the positions where the mask (bool) is True."""

    mask_BxS: Array
    latents_BxSxE: Array

    @property
    def start_B(self) -> Array:
        """Return the index of the text's first token, after the condition."""
        return self.mask_BxS.sum(axis=-1)

    def keep(self, x_BxSxE: Array) -> Array:
        """Set x to the condition's latents at the condition."""
        return jnp.where(self.mask_BxS[..., None], self.latents_BxSxE, x_BxSxE)

    def zero(self, x_BxSxE: Array) -> Array:
        """Set x to zero at the condition."""
        return jnp.where(self.mask_BxS[..., None], 0.0, x_BxSxE)


class State(NamedTuple):
    """State between two steps. Only the multistep solver uses slope and t."""

    z_BxSxE: Array
    estimate_BxSxE: Array
    slope_BxSxE: Array  # change of the estimate per unit of time over the last step
    t_B: Array  # start of the last step


Step = Callable[[Any, State], State]  # (index of the step, state) -> state


def solve(predict: Predict, z_BxSxE: Array, condition: Condition, grid_BxM: Array, noise_at: Noise, gamma: Any) -> Pair:
    """Return (latents (B, S, E) at time 1, last estimate) after the steps of `euler`."""
    state = integrate(euler(predict, condition, grid_BxM, noise_at, gamma), z_BxSxE, condition, grid_BxM)
    return state.z_BxSxE, state.estimate_BxSxE


def integrate(step: Step, z_BxSxE: Array, condition: Condition, grid_BxM: Array) -> State:
    """Return the state at time 1, after `step(i, state)` for all steps of the grid.

    grid: increasing times from 0. Entries after the first 1 are ignored, so that grids of different lengths can share
    a compilation.
    """
    return jax.lax.fori_loop(0, grid_steps(grid_BxM), step, initial(z_BxSxE, condition))


def grid_steps(grid_BxM: Array) -> Array:
    """Return the number of steps of a grid."""
    return jnp.max(jnp.argmax(grid_BxM >= 1.0, axis=1))


def initial(z_BxSxE: Array, condition: Condition) -> State:
    """Return the state at time 0."""
    z = condition.keep(z_BxSxE)
    return State(z, condition.keep(jnp.zeros_like(z)), jnp.zeros_like(z), jnp.zeros(len(z)))


def euler(predict: Predict, condition: Condition, grid_BxM: Array, noise_at: Noise, gamma: Any) -> Step:
    """Return the Euler step of the ODE (gamma 0) or SDE, whose steps except the last first go back in time by noise."""
    num_steps = grid_steps(grid_BxM)

    def step(i: Any, state: State) -> State:
        t_B, t_next_B = grid_BxM[:, i], grid_BxM[:, i + 1]
        keep_B = jnp.where(i == num_steps - 1, 1.0, jnp.clip(1 - gamma * (t_next_B - t_B), 0.0, 1.0))
        keep, step_B = keep_B[:, None, None], t_next_B - keep_B * t_B
        z = state.z_BxSxE
        noised = jax.lax.cond(gamma > 0, lambda: condition.keep(keep * z + (1 - keep) * noise_at(i)), lambda: z)
        estimate, v = predict(noised, state.estimate_BxSxE, keep_B * t_B)
        return state._replace(z_BxSxE=noised + step_B[:, None, None] * v, estimate_BxSxE=estimate)

    return step


def multistep(predict: Predict, condition: Condition, grid_BxM: Array) -> Step:
    """Return the second-order step of the ODE, which calls `predict` once.

    Over a step from t to t', the estimate x is assumed to change with the slope between the last two estimates. Then
    the solution of dz/dt = (x(t) - z) / (1 - t) is Euler's, which is exact for a constant x, plus
    slope ((t' - t) + (1 - t') log((1 - t') / (1 - t))). The network gets x extrapolated to t: with its last estimate,
    of time t - h, the error would be of first order for any solver. The first two steps are Euler's, because the first
    estimate is made without a previous one, so the slope after it is meaningless. Drawn grids have steps that are much
    longer than the one before; there the change of x is at most MAX_GROWTH times the last change.
    """

    def step(i: Any, state: State) -> State:
        t_B, t_next_B = grid_BxM[:, i], grid_BxM[:, i + 1]
        passed_B, left_B = t_B - state.t_B, jnp.maximum(1 - t_next_B, 1e-6)
        given = state.estimate_BxSxE + passed_B[:, None, None] * state.slope_BxSxE
        x, v = predict(state.z_BxSxE, condition.keep(given), t_B)
        h_B = t_next_B - t_B
        per_time_B = jnp.where(i > 1, 1 / jnp.maximum(jnp.maximum(passed_B, h_B / MAX_GROWTH), 1e-6), 0.0)
        slope = condition.zero(per_time_B[:, None, None] * (x - state.estimate_BxSxE))
        more_B = h_B + left_B * jnp.log(left_B / jnp.maximum(1 - t_B, 1e-6))
        z = state.z_BxSxE + h_B[:, None, None] * v + more_B[:, None, None] * slope
        return State(z, x, slope, t_B)

    return step


def refine(predict: Predict, condition: Condition, noise_at: Noise, resample: bool = False) -> Step:
    """Return a refinement pass: the estimate at time 0 from noise and the last estimate. The latents are the estimate.

    All passes see the noise of the start, `noise_at(-1)`; if `resample` is set, each pass after the first has its own.
    """

    def step(i: Any, state: State) -> State:
        noise = noise_at(jnp.where(i > 0, i, -1) if resample else -1)
        x, _ = predict(condition.keep(noise), state.estimate_BxSxE, jnp.zeros_like(state.t_B))
        return state._replace(z_BxSxE=x, estimate_BxSxE=x)

    return step


def make_predict(
    model: Any, condition: Condition, guidance: Guidance, t_eps: float, *, use_cfg: bool, use_w: bool = True
) -> Predict:
    """Return the guided network.

    use_cfg: run a second pass without the condition (cfg != 1). use_w: a model without guidance tokens extrapolates
    between passes with and without the previous estimate (w != 1); one with guidance tokens takes w as an input.
    """
    extrapolate = model.shape.self_cond and not model.shape.num_self_cond_cfg_tokens and use_w

    def one_pass(z: Array, estimate: Array, t: Array, keep: Callable[[Array], Array]) -> Pair:
        w = jnp.full_like(t, guidance.w) if model.shape.num_self_cond_cfg_tokens else None
        x = keep(model.denoise(model(with_estimate(model, z, estimate), t, w, jnp.zeros_like(t), condition.start_B)))
        return x, velocity(x, z, t, t_eps)

    def self_guided(z: Array, estimate: Array, t: Array, keep: Callable[[Array], Array]) -> Pair:
        with_previous = one_pass(z, estimate, t, keep)
        if not extrapolate:
            return with_previous
        without = one_pass(z, keep(jnp.zeros_like(z)), t, keep)
        return jax.tree.map(lambda c, u: u + guidance.w * (c - u), with_previous, without)

    def predict(z: Array, estimate: Array, t: Array) -> Pair:
        x, v = self_guided(z, estimate, t, condition.keep)
        if use_cfg:
            free_x, free_v = self_guided(condition.zero(z), condition.zero(estimate), t, lambda x: x)
            x, v = free_x + guidance.cfg * (x - free_x), free_v + guidance.cfg * (v - free_v)
        return condition.keep(x), condition.zero(v)

    return predict


def decode(model: Any, z_BxSxE: Array, condition: Condition, guidance: Guidance) -> Array:
    """Return the tokens (B, S) of latents at time 1."""
    return model.tokens(decode_features(model, z_BxSxE, condition, guidance))


def decode_features(model: Any, z_BxSxE: Array, condition: Condition, guidance: Guidance) -> Array:
    """Return the features (B, S, H) of latents at time 1: one decoding pass without a previous estimate."""
    one_B = jnp.ones(z_BxSxE.shape[0])
    w = one_B * guidance.w if model.shape.num_self_cond_cfg_tokens else None
    return model(with_estimate(model, z_BxSxE, jnp.zeros_like(z_BxSxE)), one_B, w, one_B, condition.start_B)
