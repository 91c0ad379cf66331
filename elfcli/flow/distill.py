"""Progressive distillation: one step of a student learns to match K smaller steps of its frozen teacher.

The method is by Salimans and Ho (arXiv 2202.00512); the objective is that of ELF's authors
(github.com/lillian039/ELF, branch `distillation`). Shapes as in objective.py, with M distilling examples in a group.

A student of n steps is trained at t_s = u (1 - h), h = 1 / n. The teacher moves from t_s to t_s + h in K Euler steps,
and the target is the point at time 1 on the straight line through both ends. The decode branch is that of ordinary
training. Examples have equal weight within their branch, whatever their number of tokens.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elfcli.config.schema import DistillationSettings, ObjectiveSettings
from elfcli.flow import objective, sampler
from elfcli.flow.objective import Batch, Draws, Key, Pair
from elfcli.flow.schedules import draw_times


def draw(
    key: Array, cfg: ObjectiveSettings, distillation: DistillationSettings, shape: tuple[int, int, int, int]
) -> Draws:
    """Draw the random numbers of ordinary training and the teacher's times for latents of `shape` (G, N, S, E)."""
    draw_key, sub_key = jax.random.split(key)
    sizes, p_mean, p_std = (*shape[:2], distillation.sub_steps - 1), cfg.denoiser_p_mean, cfg.denoiser_p_std
    shares_GxNxK = draw_times(sub_key, sizes, distillation.teacher_schedule, p_mean, p_std)
    return with_sub_times(objective.draw(draw_key, cfg, shape), shares_GxNxK, distillation)


def with_sub_times(draws: Draws, shares_GxNxK: Array, distillation: DistillationSettings) -> Draws:
    """Replace u in the draws by t_s, and add K + 1 times from t_s to t_s + h. shares: K - 1 draws from [0, 1)."""
    h = 1 / (distillation.student_steps or 1)
    start = (draws.t_GxN * (1 - h))[..., None]
    times = [start, start + h * jnp.sort(shares_GxNxK, axis=-1), start + h]
    return draws._replace(t_GxN=start[..., 0], sub_times_GxNxK=jnp.concatenate(times, axis=-1))


class DistillTargets(NamedTuple):
    """Inputs and targets of the distilling examples, without gradient."""

    z_GxMxSxE: Array  # latents at t_s
    seen_GxMxSxE: Array  # the student's previous estimate
    target_GxMxSxE: Array


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher. model: its network with weights. settings: those of the round."""

    model: Any
    settings: DistillationSettings

    def losses(
        self, model: Any, batch: Batch, draws: Draws, cfg: ObjectiveSettings, counts: tuple[int, int], key: Key = None
    ) -> Pair:
        """Return the mean losses (distill, decode) of the student `model`; arguments as in `objective.split_loss`."""
        k, num_first = counts
        den_batch, den_draws = jax.tree.map(lambda a: a[:, k:], (batch, draws))
        taught = self.teach(den_batch, den_draws, cfg, num_first)
        return self.student_losses(model, taught, batch, draws, cfg, key)

    def teach(self, batch: Batch, draws: Draws, cfg: ObjectiveSettings, num_first: int) -> DistillTargets:
        """Return what the student learns from a batch of distilling examples.

        The first num_first examples of a group may be self-conditioned: they get the teacher's estimate at z.
        """
        z, _ = objective.denoise_input(batch, draws, cfg)
        seen = jnp.where(batch.cond_GxNxS[..., None], batch.x0_GxNxSxE, 0.0)
        if not z.size:
            return DistillTargets(z, seen, z)
        if num_first and self.model.shape.self_cond:
            first_batch, first, z_first, seen_first = jax.tree.map(lambda a: a[:, :num_first], (batch, draws, z, seen))
            estimate, _ = self.predict(first_batch, first, cfg)(flat(z_first), flat(seen_first), flat(first.t_GxN))
            coin = first.self_cond_GxN[..., None, None]
            seen_first = jnp.where(coin, estimate.reshape(z_first.shape), seen_first)
            seen = jnp.concatenate([seen_first, seen[:, num_first:]], axis=1)
        assert draws.sub_times_GxNxK is not None
        times_KxB = flat(draws.sub_times_GxNxK).T
        predict = self.predict(batch, draws, cfg)

        def step(state: Pair, times: Pair) -> tuple[Pair, None]:
            z_BxSxE, estimate = state
            estimate, v = predict(z_BxSxE, estimate, times[0])
            return (z_BxSxE + (times[1] - times[0])[:, None, None] * v, estimate), None

        start = flat(z), flat(seen)
        if self.settings.sub_steps == 1:
            target = predict(*start, times_KxB[0])[0].reshape(z.shape)
        else:
            (end, _), _ = jax.lax.scan(step, start, (times_KxB[:-1], times_KxB[1:]))
            h = 1 / (self.settings.student_steps or 1)
            target = z + ((1 - draws.t_GxN) / h)[..., None, None] * (end.reshape(z.shape) - z)
        return jax.lax.stop_gradient(DistillTargets(z, seen, target))

    def student_losses(
        self, model: Any, taught: DistillTargets, batch: Batch, draws: Draws, cfg: ObjectiveSettings, key: Key = None
    ) -> Pair:
        """Return the mean losses (distill, decode) of one shared pass.

        The examples of each group before those in `taught` decode. Their previous estimate is zero, as in ordinary
        training and sampling, or the condition. The distillation loss is the squared error of the estimate, averaged
        over a latent's components, then over an example's tokens.
        """
        k = batch.ids_GxNxS.shape[1] - taught.z_GxMxSxE.shape[1]
        dec_batch, dec_draws = jax.tree.map(lambda a: a[:, :k], (batch, draws))
        shown = dec_batch.cond_GxNxS[..., None] & self.settings.decode_with_condition
        shown = jnp.where(shown, dec_batch.x0_GxNxSxE, 0.0)
        z = jnp.concatenate([objective.decode_input(dec_batch, dec_draws, cfg), taught.z_GxMxSxE], axis=1)
        seen = jnp.concatenate([shown, taught.seen_GxMxSxE], axis=1)
        features = objective.shared_pass(model, (z, seen), batch, draws, k, key)
        distill_loss = decode_loss = jnp.zeros(())
        if taught.z_GxMxSxE.shape[1]:
            error_GxMxS = jnp.mean((model.denoise(features[:, k:]) - taught.target_GxMxSxE) ** 2, axis=-1)
            distill_loss = mean_of_examples(error_GxMxS, batch.loss_GxNxS[:, k:])
        if k:
            entropy_GxNxS = model.cross_entropy(features[:, :k], dec_batch.ids_GxNxS)
            decode_loss = mean_of_examples(entropy_GxNxS, dec_batch.loss_GxNxS)
        return distill_loss, decode_loss

    def predict(self, batch: Batch, draws: Draws, cfg: ObjectiveSettings) -> sampler.Predict:
        """Return the teacher as a function for the sampler's solvers, with flat arrays.

        If teacher_cfg is not 1, a second pass without the condition guides it, so that one pass of the student learns
        two passes of the teacher. Both passes are the same for examples with a dropped condition.
        """
        condition = sampler.Condition(flat(batch.cond_GxNxS), flat(batch.x0_GxNxSxE))
        cfg_scale = 1.0 if self.settings.teacher_cfg is None else self.settings.teacher_cfg
        guidance = sampler.Guidance(jnp.float32(cfg_scale), flat(draws.w_GxN))
        return sampler.make_predict(self.model, condition, guidance, cfg.t_eps, use_cfg=cfg_scale != 1, use_w=False)


def flat(array: Array) -> Array:
    """Reshape (G, M, ...) to (G M, ...)."""
    return array.reshape(-1, *array.shape[2:])


def mean_of_examples(value_GxNxS: Array, counted_GxNxS: Array) -> Array:
    """Return the mean over examples of each one's mean over its counted positions."""
    total, count = jnp.sum(value_GxNxS * counted_GxNxS, axis=-1), jnp.sum(counted_GxNxS, axis=-1)
    return jnp.mean(total / jnp.maximum(count, 1))
