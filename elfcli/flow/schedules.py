"""Distributions of times in training and grids of times for sampling (paper, training and sampling)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def logit_normal(key: Array, shape: tuple[int, ...], mean: float, std: float) -> Array:
    """Draw sigmoid(mean + std n) with standard normal n: float32 of `shape` in (0, 1)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def fitting_noise(width: int) -> tuple[float, float]:
    """Return noise scales (denoiser, decoder) for latents of this width: the paper's 2 at T5-small's 512 numbers, and 1
    at 64, which was measured for free text (docs/experiments.md).

    A token of more numbers needs more noise to be hidden as well, because the signal adds up over them.
    """
    return 2.0 * (width / 512) ** 0.5, (width / 64) ** 0.5


def median_time(schedule: str, mean: float) -> float:
    """Return the median of the times of `draw_times`."""
    return 1 / (1 + math.exp(-mean)) if schedule == "logit_normal" else 0.5


def draw_times(key: Array, shape: tuple[int, ...], schedule: str, mean: float, std: float) -> Array:
    """Draw training times of `shape`: logit-normal, or uniform on [0, 1)."""
    return logit_normal(key, shape, mean, std) if schedule == "logit_normal" else jax.random.uniform(key, shape)


def time_grid(key: Array, num_steps: int | Array, even_M: Array, mean: float, std: float) -> Array:
    """Return sampling times (M,): 0, num_steps - 1 sorted logit-normal draws, then ones; or `even_M` if it is not NaN.

    num_steps (at most M - 1) and even_M may be traced: settings share a compilation. The draws do not depend on M.
    """
    i = jnp.arange(len(even_M) - 2)
    draws = jax.vmap(lambda i: logit_normal(jax.random.fold_in(key, i), (), mean, std))(i)
    drawn = jnp.concatenate([jnp.zeros(1), jnp.sort(jnp.where(i < num_steps - 1, draws, 1.0)), jnp.ones(1)])
    return jnp.where(jnp.isnan(even_M), drawn, even_M)


def even_grid(schedule: str, num_steps: int, length: int, shift: float = 1.0) -> np.ndarray:
    """Return the times (length + 1,), float32, of deterministic schedules: 0, ..., 1, then ones; else NaN.

    uniform: even steps u. shifted: u / (u + shift (1 - u)).
    """
    if schedule == "logit_normal":
        return np.full(length + 1, np.nan, np.float32)
    u = np.minimum(np.arange(length + 1) / num_steps, 1.0)
    if schedule == "shifted":
        u = u / (u + shift * (1 - u))
    return u.astype(np.float32)
