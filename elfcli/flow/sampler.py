"""Sampling (paper, sampling): solve the flow from noise to latents, then decode the latents into tokens.

The solvers know no network: they take a function (z, previous estimate, t) -> (estimate, velocity) and a grid of times.
Shapes: B batch, S sequence, E latent width, M times.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elfcli.flow.objective import velocity, with_estimate

MAX_GROWTH = 2.0


class Guidance(NamedTuple):
    """Guidance scales, traced: all values share one compilation."""

    cfg: jax.Array  # classifier-free guidance of the condition
    w: jax.Array  # self-conditioning guidance


class Condition(NamedTuple):
    mask_BxS: jax.Array  # bool: position lies in the condition
    latents_BxSxE: jax.Array  # used where the mask is True

    @property
    def start_B(self):
        """Index of the text's first token, after the condition."""
        return self.mask_BxS.sum(axis=-1)

    def keep(self, x_BxSxE):
        """x, with the condition's latents where the mask is True."""
        return jnp.where(self.mask_BxS[..., None], self.latents_BxSxE, x_BxSxE)

    def zero(self, x_BxSxE):
        return jnp.where(self.mask_BxS[..., None], 0.0, x_BxSxE)


class State(NamedTuple):
    """Between two steps. slope: change of the estimate per unit of time over the last step, and t: when it began; the
    multistep solver alone uses them."""

    z_BxSxE: jax.Array
    estimate_BxSxE: jax.Array
    slope_BxSxE: jax.Array
    t_B: jax.Array


def solve(predict, z_BxSxE, condition: Condition, grid_BxM, noise_at, gamma):
    """(latents (B, S, E) at time 1, last estimate), by the steps of `euler`."""
    state = integrate(euler(predict, condition, grid_BxM, noise_at, gamma), z_BxSxE, condition, grid_BxM)
    return state.z_BxSxE, state.estimate_BxSxE


def integrate(step, z_BxSxE, condition: Condition, grid_BxM) -> State:
    """The state at time 1, by `step(i, state)` for all steps of the grid.

    grid: increasing times of each example, from 0; entries after the first 1 are ignored, so that grids of one length
    share a compilation.
    """
    return jax.lax.fori_loop(0, grid_steps(grid_BxM), step, initial(z_BxSxE, condition))


def grid_steps(grid_BxM):
    """How many steps a grid has."""
    return jnp.max(jnp.argmax(grid_BxM >= 1.0, axis=1))


def initial(z_BxSxE, condition: Condition) -> State:
    z = condition.keep(z_BxSxE)
    return State(z, condition.keep(jnp.zeros_like(z)), jnp.zeros_like(z), jnp.zeros(len(z)))


def euler(predict, condition: Condition, grid_BxM, noise_at, gamma):
    """The step (i, state) -> state of first order. gamma 0: of the ODE; above: of the SDE, whose steps first go back in
    time by adding noise, except the last. noise_at(i): normal noise (B, S, E) of step i, already scaled."""
    num_steps = grid_steps(grid_BxM)

    def step(i, state):
        t_B, t_next_B = grid_BxM[:, i], grid_BxM[:, i + 1]
        keep_B = jnp.where(i == num_steps - 1, 1.0, jnp.clip(1 - gamma * (t_next_B - t_B), 0.0, 1.0))
        keep, step_B = keep_B[:, None, None], t_next_B - keep_B * t_B
        noised = condition.keep(keep * state.z_BxSxE + (1 - keep) * noise_at(i))
        estimate, v = predict(noised, state.estimate_BxSxE, keep_B * t_B)
        return state._replace(z_BxSxE=noised + step_B[:, None, None] * v, estimate_BxSxE=estimate)

    return step


def multistep(predict, condition: Condition, grid_BxM):
    """The step (i, state) -> state of second order of the ODE, with one call of `predict` a step.

    Over a step from t to t' the estimate x is taken to change with the slope between the last two estimates. Then
    dz/dt = (x(t) - z) / (1 - t) has the solution: Euler's, which is exact for a constant x, plus
    slope ((t' - t) + (1 - t') log((1 - t') / (1 - t))). A network that is given its last estimate would be given one of
    time t - h, and its error would be of first order whatever the solver, so it is given x extrapolated to t. The first
    two steps are Euler's: the first estimate is made without another, so that the slope after it says nothing. A step
    much longer than the one before goes on with at most MAX_GROWTH of the last change: drawn grids have such steps.
    """

    def step(i, state):
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


def make_predict(model, condition: Condition, guidance: Guidance, t_eps: float, *, use_cfg: bool, use_w: bool = True):
    """The guided network as a function (z, previous estimate, t) -> (estimate, velocity).

    use_cfg: run the second pass without condition (cfg != 1). use_w: a model without guidance tokens extrapolates
    between passes with and without the previous estimate (w != 1); one with guidance tokens takes w as an input.
    """
    extrapolate = model.shape.self_cond and not model.shape.num_self_cond_cfg_tokens and use_w

    def one_pass(z, estimate, t, keep):
        w = jnp.full_like(t, guidance.w) if model.shape.num_self_cond_cfg_tokens else None
        x = model.denoise(model(with_estimate(model, z, estimate), t, w, jnp.zeros_like(t), condition.start_B))
        x = keep(x)
        return x, velocity(x, z, t, t_eps)

    def self_guided(z, estimate, t, keep):
        with_previous = one_pass(z, estimate, t, keep)
        if not extrapolate:
            return with_previous
        without = one_pass(z, keep(jnp.zeros_like(z)), t, keep)
        return jax.tree.map(lambda c, u: u + guidance.w * (c - u), with_previous, without)

    def predict(z, estimate, t):
        x, v = self_guided(z, estimate, t, condition.keep)
        if use_cfg:
            free_x, free_v = self_guided(condition.zero(z), condition.zero(estimate), t, lambda x: x)
            x, v = free_x + guidance.cfg * (x - free_x), free_v + guidance.cfg * (v - free_v)
        return condition.keep(x), condition.zero(v)

    return predict


def decode(model, z_BxSxE, condition: Condition, guidance: Guidance):
    """Tokens (B, S) of latents at time 1.

    `model.tokens` works in chunks of positions, since all logits (B, S, V) take 8 GiB for 64 texts of 1,024 tokens.
    """
    return model.tokens(decode_features(model, z_BxSxE, condition, guidance))


def decode_features(model, z_BxSxE, condition: Condition, guidance: Guidance):
    """Features (B, S, H) of latents at time 1: one pass with the decode flag and without a previous estimate."""
    one_B = jnp.ones(z_BxSxE.shape[0])
    w = one_B * guidance.w if model.shape.num_self_cond_cfg_tokens else None
    return model(with_estimate(model, z_BxSxE, jnp.zeros_like(z_BxSxE)), one_B, w, one_B, condition.start_B)
