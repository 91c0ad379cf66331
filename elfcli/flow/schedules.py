"""Distributions of times in training and grids of times for sampling (paper, training and sampling)."""

import jax
import jax.numpy as jnp
import numpy as np


def logit_normal(key, shape, mean: float, std: float):
    """sigmoid(mean + std n) with normal n: float32 of `shape` in (0, 1)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def draw_times(key, shape, schedule: str, mean: float, std: float):
    """Training times of `shape`: logit-normal, or uniform on [0, 1)."""
    return logit_normal(key, shape, mean, std) if schedule == "logit_normal" else jax.random.uniform(key, shape)


def time_grid(key, num_steps, even_M, mean: float, std: float):
    """Sampling times (M,): 0, then num_steps - 1 sorted logit-normal draws, then ones; `even_M` itself, which
    `even_grid` makes, where it is not NaN.

    num_steps, at most M - 1, and even_M may be traced, so that settings share a compilation; the draws do not depend
    on M.
    """
    i = jnp.arange(len(even_M) - 2)
    draws = jax.vmap(lambda i: logit_normal(jax.random.fold_in(key, i), (), mean, std))(i)
    drawn = jnp.concatenate([jnp.zeros(1), jnp.sort(jnp.where(i < num_steps - 1, draws, 1.0)), jnp.ones(1)])
    return jnp.where(jnp.isnan(even_M), drawn, even_M)


def even_grid(schedule: str, num_steps: int, length: int, shift: float = 1.0):
    """Times (length + 1,), float32, of schedules that draw nothing: 0, ..., 1, then ones; NaN for `logit_normal`.

    uniform: even shares u of the steps. shifted: u / (u + shift (1 - u)).
    """
    if schedule == "logit_normal":
        return np.full(length + 1, np.nan, np.float32)
    u = np.minimum(np.arange(length + 1) / num_steps, 1.0)
    if schedule == "shifted":
        u = u / (u + shift * (1 - u))
    return u.astype(np.float32)
