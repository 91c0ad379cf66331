"""The distillation objective against plain loops over single examples, with guidance, conditions and both branches.

The reference's goldens (tests/goldens.py), which are without guidance, show that it is the reference's objective.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elfcli.config.schema import DistillationSettings, ObjectiveSettings
from elfcli.flow import distill, objective
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.layers import graphdef_of

N, S, E, V = 6, 5, 6, 11
SHAPE = ElfShape(E, V, depth=1, hidden_size=16, num_heads=2, bottleneck_dim=4)
CFG = ObjectiveSettings(decoder_noise_scale=1.0, decoder_prob=0.3, self_cond_prob=0.5, label_drop_prob=0.4)


def network(seed: int):
    params = init_params(SHAPE, jax.random.key(seed))
    kernel = params["final_layer"]["linear"]["kernel"]
    params["final_layer"]["linear"]["kernel"] = 0.3 * jax.random.normal(jax.random.key(seed + 9), kernel.shape)
    return nnx.merge(graphdef_of(ELF, SHAPE), params)


def make_batch(drop_N) -> objective.Batch:
    position, key = jnp.arange(S)[None], jax.random.key(2)
    cond = position < jnp.array([1, 0, 2, 1, 2, 1])[:, None]
    valid = position < jnp.array([5, 3, 4, 5, 4, 3])[:, None]
    x0 = objective.drop_condition(jax.random.normal(key, (N, S, E)), cond, drop_N)
    return objective.Batch(jax.random.randint(key, (N, S), 0, V), cond, objective.loss_mask(cond, valid, "pad"), x0)


def loss_of_one(teacher, student, one: objective.Batch, draws: objective.Draws, settings, decodes: bool):
    """Return the loss of one example, computed as in the definition."""
    cond, x0 = one.cond_GxNxS[:, None], one.x0_GxNxSxE
    t, w, count = draws.t_GxN, draws.w_GxN, jnp.maximum(one.loss_GxNxS.sum(), 1)

    def run(model, z, estimate, t, decode=0.0):
        arrays = jnp.concatenate([z, estimate], -1)[None], t[None], w[None], jnp.full(1, decode)
        return model(*arrays)

    if decodes:
        share = draws.decoder_lambda_GxNxSx1
        z = share * x0 + (1 - share) * draws.decoder_noise_GxNxSxE * CFG.decoder_noise_scale
        logits = student.logits(run(student, z, 0 * z, jnp.float32(1), 1.0))[0]
        logp = jax.nn.log_softmax(logits)[jnp.arange(S), one.ids_GxNxS]
        return -(logp * one.loss_GxNxS).sum() / count

    def guided(z, estimate, t):
        """Return (estimate, velocity) of the teacher, guided by passes with and without the condition."""
        with_ = jnp.where(cond, x0, teacher.denoise(run(teacher, z, estimate, t))[0])
        bare = jnp.where(cond, 0.0, z), jnp.where(cond, 0.0, estimate)
        without = teacher.denoise(run(teacher, *bare, t))[0]
        divisor = jnp.maximum(1 - t, CFG.t_eps)
        v, free_v = (with_ - z) / divisor, (without - bare[0]) / divisor
        scale = settings.teacher_cfg
        x = without + scale * (with_ - without)
        return jnp.where(cond, x0, x), jnp.where(cond, 0.0, free_v + scale * (v - free_v))

    z = jnp.where(cond, x0, t * x0 + (1 - t) * draws.noise_GxNxSxE * CFG.denoiser_noise_scale)
    seen = jnp.where(cond, x0, 0.0)
    seen = jnp.where(draws.self_cond_GxN, guided(z, seen, t)[0], seen)
    at, estimate, times = z, seen, draws.sub_times_GxNxK
    for now, following in pairwise(times):
        estimate, v = guided(at, estimate, now)
        at = at + (following - now) * v
    target = z + (1 - t) * settings.student_steps * (at - z) if settings.sub_steps > 1 else estimate
    error = ((student.denoise(run(student, z, seen, t))[0] - target) ** 2).mean(-1)
    return (error * one.loss_GxNxS).sum() / count


@pytest.mark.parametrize("sub_steps", [1, 3])
def test_losses_are_the_means_over_examples(sub_steps):
    settings = DistillationSettings(student_steps=4, teacher_steps=4 * sub_steps, teacher_cfg=1.5)
    draws = distill.draw(jax.random.key(4), CFG, settings, (1, N, S, E))
    times = np.asarray(draws.sub_times_GxNxK[0])
    assert (np.diff(times) >= 0).all() and np.allclose(times[:, -1] - times[:, 0], 0.25) and times.max() <= 1
    draws = draws._replace(drop_GxN=jnp.array([[False, True, False, False, True, False]]))
    batch, (teacher, student) = make_batch(draws.drop_GxN[0]), (network(0), network(1))
    k, num_first = objective.branch_sizes(N, CFG)
    grouped = jax.tree.map(lambda a: a[None], batch)
    assert 0 < k < N and num_first and bool(draws.self_cond_GxN[0, k])

    @jax.jit
    def both():
        losses = distill.Teacher(teacher, settings).losses
        return objective.branch_loss(student, grouped, draws, CFG, None, losses)

    def alone():
        """Return the mean losses (distill, decode) over examples, computed one by one."""
        examples = batch, jax.tree.map(lambda a: a[0], draws)
        for part, decodes in ((slice(k, None), False), (slice(0, k), True)):
            one = partial(loss_of_one, teacher, student, settings=settings, decodes=decodes)
            yield jnp.mean(jax.vmap(one)(*jax.tree.map(lambda a, part=part: a[part], examples)))

    whole, parts = both()
    np.testing.assert_allclose(
        (parts["denoise_loss"], parts["decode_loss"]), jax.jit(lambda: list(alone()))(), rtol=2e-5
    )
    expected = 0.3 * parts["decode_loss"] + 0.7 * parts["denoise_loss"]
    np.testing.assert_allclose(whole, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "quartiles"), [("logit_normal", (0.115, 0.182, 0.277)), ("uniform", (0.25, 0.5, 0.75))]
)
def test_the_teachers_times_have_their_distribution(schedule, quartiles):
    """By default logit-normal as the student's times, sigmoid(-1.5 + 0.8 n), which the reference's recipe sets."""
    settings = DistillationSettings(teacher_steps=16, student_steps=4, teacher_schedule=schedule)
    assert DistillationSettings().teacher_schedule == "logit_normal"
    cfg = ObjectiveSettings(denoiser_p_mean=-1.5, denoiser_p_std=0.8)
    draws = distill.draw(jax.random.key(0), cfg, settings, (64, 256, 2, 2))
    times = np.asarray(draws.sub_times_GxNxK)
    shares = (times[..., 1:-1] - times[..., :1]) / (times[..., -1:] - times[..., :1])
    np.testing.assert_allclose(np.quantile(shares, (0.25, 0.5, 0.75)), quartiles, atol=0.01)
