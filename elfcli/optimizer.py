"""Learning rate, AdamW and Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), as in the reference."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import PartitionSpec

from elfcli.config.schema import OptimizationSettings

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration (Jordan et al. 2024)
NEWTON_SCHULZ_STEPS = 5
GRAM_STEPS = (2, 3)  # the same steps in groups that share one product x x^T
MUON_MOMENTUM = 0.95


def learning_rates(cfg: OptimizationSettings, peak: float, warmup_steps: int, total_steps: int) -> np.ndarray:
    """Return the learning rate of every step, float32 (steps,): linear from 0, then constant or cosine to min_lr."""
    after = optax.constant_schedule(peak)
    if cfg.lr_schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(total_steps - warmup_steps, 1), alpha=cfg.min_lr / peak)
    if warmup_steps:
        after = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), after], [warmup_steps])
    steps = jnp.arange(total_steps)
    return np.asarray(jnp.broadcast_to(after(steps), steps.shape), np.float32)


class MuonState(NamedTuple):
    """State of Muon."""

    updates: Array  # number of updates, int32
    mu: Any  # moving average of gradients


def scale_by_muon(dtype: Any = jnp.float32) -> optax.GradientTransformation:
    """Return Muon, whose update of each matrix (..., m, n) is its orthogonalized Nesterov momentum, in float32.

    dtype: type of the iteration's products; Muon was designed for bfloat16, the reference computes in float32.
    """

    def init(params: Any) -> MuonState:
        return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        count, beta = state.updates + 1, MUON_MOMENTUM
        mu = optax.tree.update_moment(gradients, state.mu, beta, 1)
        ahead = optax.tree.bias_correction(mu, beta, count + 1)
        now = optax.tree.bias_correction(gradients, beta, count)
        updates = jax.tree.map(lambda m, g: orthogonalize(beta * m + (1 - beta) * g, dtype), ahead, now)
        return updates, MuonState(count, mu)

    return optax.GradientTransformation(init, update)


def orthogonalize(matrices: Array, dtype: Any = jnp.float32) -> Array:
    """Move the singular values of matrices (..., m, n) towards 1 by Newton-Schulz steps, times sqrt(max(1, n / m)).

    Under a mesh (`jax.set_mesh`), the devices share the work by layers of a stack or columns of one matrix.
    """
    m, n = matrices.shape[-2:]
    x = matrices / (jnp.linalg.norm(matrices, axis=(-2, -1), keepdims=True) + 1e-8)
    x = constrain_layout(jnp.swapaxes(x, -1, -2) if m > n else x, shared=False)
    x = constrain_layout(x.astype(dtype), shared=True)
    # Products of polynomials need float32 and pay off if the matrix is not nearly square.
    together = dtype == jnp.float32 and max(m, n) > 1.6 * min(m, n)
    for steps in GRAM_STEPS if together else (1,) * NEWTON_SCHULZ_STEPS:
        x = newton_schulz(x, steps)
    x = constrain_layout(x, shared=False)
    x = jnp.swapaxes(x, -1, -2) if m > n else x
    return x.astype(matrices.dtype) * max(1.0, n / m) ** 0.5


def newton_schulz(x: Array, steps: int) -> Array:
    """Return x (..., m, n), m <= n, after `steps` steps x <- p(x x^T) x, with two products of the size of x.

    Every factor is a polynomial in a = x x^T, so the next step's matrix is p(a) a p(a), and the factors are multiplied
    before x is. That squares the singular values: five steps at once lose 4e-4 in float32, two and three lose 4e-5.
    """
    c0, c1, c2 = NEWTON_SCHULZ

    def without_c0(a: Array) -> Array:
        return c1 * a + c2 * (a @ a)

    a = x @ jnp.swapaxes(x, -1, -2)
    if steps == 1:
        return c0 * x + without_c0(a) @ x
    identity = c0 * jnp.eye(x.shape[-2], dtype=x.dtype)
    factors = p = identity + without_c0(a)
    for _ in range(steps - 1):
        a = p @ a @ p
        p = identity + without_c0(a)
        factors = p @ factors
    return factors @ x


def constrain_layout(x: Array, *, shared: bool) -> Array:
    """Shard x (..., m, n), m <= n, over all devices by layers (else by columns) if `shared`; else replicate it.

    Resharding passes through a replicated array, as the compiler would do anyway, with a warning.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = [mesh.axis_names] if x.ndim == 3 else [None, mesh.axis_names]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec) if shared else PartitionSpec())


def rule_of(path: tuple, leaf: Array) -> str:
    """Return `muon` for matrices, ignoring the layer axis of stacked blocks, and `adam` for other leaves."""
    return "muon" if leaf.ndim - (path[0].key == "blocks") == 2 else "adam"


def scale_by_rate() -> optax.GradientTransformationExtraArgs:
    """Return the last step of an optimizer: updates times the negative of `rate`, an argument of `update`.

    The rate is an argument, so that the compiled step does not depend on the schedule. The state is the one of
    `optax.scale_by_learning_rate` with a schedule.
    """

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, *, rate: jax.Array, **_: Any) -> tuple[Any, Any]:
        scaled = jax.tree.map(lambda update: -rate.astype(update.dtype) * update, updates)
        return scaled, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(cfg: OptimizationSettings, dtype: Any = jnp.float32) -> optax.GradientTransformationExtraArgs:
    """Return clipping by global norm, then AdamW or Muon (with Adam for all but matrices); `update` takes `rate`.

    dtype: of Muon's products. Equal settings give the same object, so that programs that use it are compiled once.
    """
    return _optimizer(cfg.optimizer, cfg.weight_decay, (cfg.adam_b1, cfg.adam_b2), cfg.clip_norm, jnp.dtype(dtype))


@cache
def _optimizer(
    name: str, weight_decay: float, betas: tuple[float, float], clip_norm: float, dtype: Any
) -> optax.GradientTransformationExtraArgs:
    decay = optax.add_decayed_weights(weight_decay)
    if name == "muon":
        labels = partial(jax.tree_util.tree_map_with_path, rule_of)
        adam = optax.chain(optax.scale_by_adam(b1=0.9, b2=0.999, nesterov=True), decay, scale_by_rate())
        muon = optax.chain(scale_by_muon(dtype), decay, scale_by_rate())
        update = optax.partition({"muon": muon, "adam": adam}, labels)
    else:
        update = optax.chain(optax.scale_by_adam(b1=betas[0], b2=betas[1]), decay, scale_by_rate())
    return optax.chain(optax.clip_by_global_norm(clip_norm), update)
