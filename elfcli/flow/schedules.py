"""Distributions of times and grids for sampling (SPEC 4 and 6)."""

import jax
import jax.numpy as jnp


def logit_normal(key, shape, mean: float, std: float):
    """sigmoid of a normal draw, float32 in (0, 1)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def draw_times(key, shape, schedule: str, mean: float, std: float):
    """Training times: `logit_normal`, or `uniform` on [0, 1)."""
    return logit_normal(key, shape, mean, std) if schedule == "logit_normal" else jax.random.uniform(key, shape)


def time_grid(key, num_steps: int, schedule: str, mean: float, std: float):
    """The num_steps + 1 times of a sampling run, from 0 to 1: sorted draws of the training distribution, or even."""
    if schedule == "uniform":
        return jnp.linspace(0.0, 1.0, num_steps + 1)
    inner = jnp.sort(logit_normal(key, (num_steps - 1,), mean, std))
    return jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])
