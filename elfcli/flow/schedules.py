"""Distributions of times in training and grids of times for sampling (paper, training and sampling)."""

import jax
import jax.numpy as jnp


def logit_normal(key, shape, mean: float, std: float):
    """sigmoid(mean + std n) with normal n: float32 of `shape` in (0, 1)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def draw_times(key, shape, schedule: str, mean: float, std: float):
    """Training times of `shape`: logit-normal, or uniform on [0, 1)."""
    return logit_normal(key, shape, mean, std) if schedule == "logit_normal" else jax.random.uniform(key, shape)


def time_grid(key, num_steps, uniform, mean: float, std: float, length: int):
    """Sampling times (length + 1,): 0, then num_steps - 1 sorted logit-normal draws, then ones.

    uniform: evenly spaced instead. num_steps (at most `length`) and uniform may be traced, so that settings share a
    compilation; the draws do not depend on `length`.
    """
    i = jnp.arange(length - 1)
    draws = jax.vmap(lambda i: logit_normal(jax.random.fold_in(key, i), (), mean, std))(i)
    inner = jnp.sort(jnp.where(i < num_steps - 1, draws, 1.0))
    inner = jnp.where(uniform, jnp.minimum((i + 1) / num_steps, 1.0), inner)
    return jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])
