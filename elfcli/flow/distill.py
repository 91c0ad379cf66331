"""Progressive distillation: a student learns to take in one step what its frozen teacher takes in K smaller ones.

The idea is that of Salimans and Ho (arXiv 2202.00512); the objective is that of ELF's authors
(github.com/lillian039/ELF, branch `distillation`). Shapes as in objective.py, with M distilling examples of a group.

A student of n steps is trained at t_s = u (1 - h), h = 1 / n. The teacher goes from t_s to t_s + h in K Euler steps,
and the target is the point at time 1 of the straight line through both ends. The decode branch is that of ordinary
training. Each example counts the same in its branch, however many tokens it has.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elfcli.config.schema import DistillationSettings, ObjectiveSettings
from elfcli.flow import objective, sampler
from elfcli.flow.objective import Batch, Draws


def draw(key, cfg: ObjectiveSettings, distillation: DistillationSettings, shape: tuple[int, int, int, int]) -> Draws:
    """Draws for latents of `shape` (G, N, S, E): those of ordinary training, and where the teacher's steps begin."""
    draw_key, sub_key = jax.random.split(key)
    shares_GxNxK = jax.random.uniform(sub_key, (*shape[:2], distillation.sub_steps - 1))
    return with_sub_times(objective.draw(draw_key, cfg, shape), shares_GxNxK, distillation)


def with_sub_times(draws: Draws, shares_GxNxK, distillation: DistillationSettings) -> Draws:
    """The draws with t_s in place of u, and K + 1 times from t_s to t_s + h; shares: K - 1 draws from [0, 1)."""
    h = 1 / (distillation.student_steps or 1)
    start = (draws.t_GxN * (1 - h))[..., None]
    times = [start, start + h * jnp.sort(shares_GxNxK, axis=-1), start + h]
    return draws._replace(t_GxN=start[..., 0], sub_times_GxNxK=jnp.concatenate(times, axis=-1))


class DistillTargets(NamedTuple):
    """Of the distilling examples, without gradient."""

    z_GxMxSxE: jax.Array  # latents at t_s
    seen_GxMxSxE: jax.Array  # the estimate that the student sees beside them
    target_GxMxSxE: jax.Array


@dataclass(frozen=True)
class Teacher:
    """model: the teacher's network with its weights, which are never trained. settings: of the round."""

    model: Any
    settings: DistillationSettings

    def losses(self, model, batch: Batch, draws: Draws, cfg: ObjectiveSettings, counts: tuple[int, int], key=None):
        """Mean losses (distill, decode) of the student `model`, with the arguments of `objective.split_loss`."""
        k, num_first = counts
        den_batch, den_draws = jax.tree.map(lambda a: a[:, k:], (batch, draws))
        taught = self.teach(den_batch, den_draws, cfg, num_first)
        return self.student_losses(model, taught, batch, draws, cfg, key)

    def teach(self, batch: Batch, draws: Draws, cfg: ObjectiveSettings, num_first: int) -> DistillTargets:
        """What the student learns of a batch of distilling examples.

        The first num_first examples of a group may be self-conditioned: they see the teacher's estimate at z.
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
        predict, times_KxB = self.predict(batch, draws, cfg), flat(draws.sub_times_GxNxK).T

        def step(state, times):
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
        self, model, taught: DistillTargets, batch: Batch, draws: Draws, cfg: ObjectiveSettings, key=None
    ):
        """Mean losses (distill, decode) of one shared pass; of each group the first examples, those not taught, decode.

        Distilling: the squared error of the estimate, mean over the numbers of a latent, then over an example's tokens.
        Decoding examples see zeros beside their noisy latents, as in ordinary training and sampling, or the condition.
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
            logits = model.logits(features[:, :k])
            entropy_GxNxS = optax.softmax_cross_entropy_with_integer_labels(logits, dec_batch.ids_GxNxS)
            decode_loss = mean_of_examples(entropy_GxNxS, dec_batch.loss_GxNxS)
        return distill_loss, decode_loss

    def predict(self, batch: Batch, draws: Draws, cfg: ObjectiveSettings):
        """The sampler's function (z, previous estimate, t) -> (estimate, velocity) of the teacher, for flat arrays.

        With teacher_cfg other than 1 it is guided, by a second pass without the condition, so that the student learns
        in one pass what the teacher needs two for. Where an example's condition is dropped both passes are the same.
        """
        condition = sampler.Condition(flat(batch.cond_GxNxS), flat(batch.x0_GxNxSxE))
        cfg_scale = 1.0 if self.settings.teacher_cfg is None else self.settings.teacher_cfg
        guidance = sampler.Guidance(jnp.float32(cfg_scale), flat(draws.w_GxN))
        return sampler.make_predict(self.model, condition, guidance, cfg.t_eps, use_cfg=cfg_scale != 1, use_w=False)


def flat(array):
    """(G, M, ...) as (G M, ...)."""
    return array.reshape(-1, *array.shape[2:])


def mean_of_examples(value_GxNxS, counted_GxNxS):
    """The mean over examples of each one's mean over its counted positions."""
    total, count = jnp.sum(value_GxNxS * counted_GxNxS, axis=-1), jnp.sum(counted_GxNxS, axis=-1)
    return jnp.mean(total / jnp.maximum(count, 1))
