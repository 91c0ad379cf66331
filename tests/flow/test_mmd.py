"""MMD and IRD against plain loops, and which examples make a kernel.

The goldens (tests/goldens.py) compare losses and gradients with those of the authors' code.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elfcli.config.schema import DistillationSettings, ObjectiveSettings
from elfcli.flow import mmd, objective
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.layers import graphdef_of
from elfcli.training.students import feature_network

G, M, S, E, H = 2, 4, 3, 5, 4
SHAPE = ElfShape(E, 7, depth=2, hidden_size=16, num_heads=2, bottleneck_dim=4)


def test_tokens_may_be_compared_with_those_of_other_texts_only():
    draw = np.random.default_rng(0)
    real, fake = (draw.normal(size=(G, M, S, H)).astype(np.float32) + shift for shift in (30.0, 30.5))
    settings = DistillationSettings(distill_objective="mmd", sigma=1.5, kernel_texts=2, kernel_pairs="texts")
    made = mmd.Mmd(None, settings, jnp.int32(0), jnp.zeros(()))
    rows = []
    for x, y in zip(*(np.float64(a).reshape(-1, 2 * S, H) for a in (real, fake)), strict=True):
        kernels = [np.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * 1.5**2)) for a, b in ((x, x), (y, y), (x, y))]
        rows.append(sum(k[:S, S:].mean() for k in kernels[:2]) - 2 * kernels[2].mean())
    distance = jax.jit(made.distance)
    np.testing.assert_allclose(distance(real, fake), np.mean(rows), rtol=2e-5)
    assert distance(real, real[:, ::-1]) < 0, "an estimate without the diagonal may be negative"


def written_out(kind: str, student, frozen, first_block, batch: objective.Batch, draws: objective.Draws, more):
    """Return the losses (distill, decode) of one group, two of whose six examples decode. more: (noise of real texts,
    passes)."""
    x0, w, text = batch.x0_GxNxSxE[0, 2:], draws.w_GxN[0, 2:], ~batch.cond_GxNxS[0, 2:, :, None]
    z, cold = (jnp.where(text, a, x0) for a in (2 * draws.noise_GxNxSxE[0, 2:], 0 * x0))

    def estimate(model, last):
        features = model(jnp.concatenate([z, last], -1), 0 * w, w, 0 * w)
        return jnp.where(text, model.denoise(features), x0)

    def features(x, noise):
        mixed = jnp.where(text, 0.95 * x + 0.05 * 2 * noise, x0)
        return first_block(jnp.concatenate([mixed, x], -1), jnp.full(4, 0.95), w, 0 * w)

    share = draws.decoder_lambda_GxNxSx1[0, :2]
    noisy = share * batch.x0_GxNxSxE[0, :2] + (1 - share) * 5 * draws.decoder_noise_GxNxSxE[0, :2]
    read = student(jnp.concatenate([noisy, 0 * noisy], -1), jnp.ones(2), draws.w_GxN[0, :2], jnp.ones(2))
    logp = jax.nn.log_softmax(student.logits(read))
    entropy = -jnp.take_along_axis(logp, batch.ids_GxNxS[0, :2, :, None], -1)[..., 0]
    decode = (entropy * batch.loss_GxNxS[0, :2]).sum() / batch.loss_GxNxS[0, :2].sum()
    last = cold
    for _ in range(more[1]):
        last = jax.lax.stop_gradient(estimate(student if kind == "mmd" else frozen, last))
    if kind == "ird":
        error = ((estimate(student, cold) - last) ** 2).mean(-1, keepdims=True)
        return (error * text).sum() / text.sum(), decode
    fake, real = features(estimate(student, last), draws.noise_GxNxSxE[0, 2:]), features(x0, more[0])
    rows = []
    for first in (0, 2):
        y, x = (a[first : first + 2].reshape(2 * S, -1) for a in (fake, real))
        kernels = [jnp.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * 1.5**2)) for a, b in ((x, x), (y, y), (x, y))]
        others = 2 * S * (2 * S - 1)
        rows.append(sum((k.sum() - 2 * S) / others for k in kernels[:2]) - 2 * kernels[2].mean())
    return sum(rows) / 2, decode


@pytest.mark.parametrize("kind", ["mmd", "ird"])
def test_losses_and_gradients_are_those_of_the_definition(kind):
    key = jax.random.key(3)
    settings = DistillationSettings(distill_objective=kind, sigma=1.5, feature_layer=0, ird_passes=2)
    cfg = ObjectiveSettings(denoiser_noise_scale=2.0, decoder_noise_scale=5.0)
    student, frozen = (init_params(SHAPE, jax.random.key(seed)) for seed in (0, 1))
    for params in (student, frozen):
        kernel = params["final_layer"]["linear"]["kernel"]
        params["final_layer"]["linear"]["kernel"] = 0.5 * jax.random.normal(key, kernel.shape)
    cond = jnp.arange(S) < (kind == "ird") * jnp.array([0, 1, 1, 0, 2, 0])[:, None]
    valid = jnp.arange(S) < jnp.array([2, 3, 3, 2, 3, 1])[:, None]  # padding counts, but not where texts are decoded
    x0, real_noise = jax.random.normal(key, (2, 1, 6, S, E))
    batch = objective.Batch(jnp.arange(6 * S).reshape(1, 6, S) % 7, cond[None], (valid & ~cond)[None], x0)
    draws = objective.draw(key, cfg, x0.shape)
    first = nnx.merge(graphdef_of(ELF, replace(SHAPE, depth=1)),
                      {**frozen, "blocks": jax.tree.map(lambda a: a[:1], frozen["blocks"])})  # fmt: skip
    teacher = nnx.merge(graphdef_of(ELF, SHAPE), frozen)
    if kind == "mmd":
        made = mmd.Mmd(feature_network(frozen, SHAPE, settings), settings, jnp.int32(2), real_noise[:, 2:])
    else:
        made = mmd.Ird(teacher, settings.ird_passes)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def ours(params):
        losses = made.losses(nnx.merge(graphdef_of(ELF, SHAPE), params), batch, draws, cfg, (2, 0))
        return losses[0] + losses[1], losses

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def theirs(params):
        model = nnx.merge(graphdef_of(ELF, SHAPE), params)
        losses = written_out(kind, model, teacher, first, batch, draws, (real_noise[0, 2:], 2))
        return losses[0] + losses[1], losses

    (_, found), gradients = ours(student)
    (_, expected), their_gradients = theirs(student)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-3), gradients, their_gradients)
    assert abs(expected[0]) > 0.01


@pytest.mark.parametrize(
    ("batch", "prob", "texts", "size"),
    [(80, 0.2, 2, 20), (80, 0.2, 4, 20), (512, 0.2, 2, 32), (16, 0.2, 2, 8), (32, 0.1, 2, 16), (16, 0.2, 5, None),
     (1, 0.2, 1, None), (16, 1.0, 1, None)],
)  # fmt: skip
def test_groups_hold_whole_kernels_beside_the_share_that_decodes(batch, prob, texts, size):
    cfg = ObjectiveSettings(decoder_prob=prob)
    assert mmd.kernel_group(batch, batch, cfg, texts) == size
    if size:
        k, _ = objective.branch_sizes(size, cfg)
        assert batch % size == 0 and (size - k) % texts == 0
        assert objective.branch_sizes(size, mmd.by_share(cfg, size))[0] == k


def test_groups_stay_on_a_device_if_they_can():
    assert mmd.kernel_group(80, 10, ObjectiveSettings(decoder_prob=0.2), 2) == 10


def test_bootstrap_passes_are_none_for_a_quarter_of_the_steps_and_otherwise_up_to_three():
    draw = jax.jit(jax.vmap(partial(mmd.draw_passes, settings=DistillationSettings())))
    counts = np.bincount(draw(jax.random.split(jax.random.key(0), 4000)), minlength=5) / 4000
    np.testing.assert_allclose(counts, [0.25, 0.25, 0.25, 0.25, 0], atol=0.03)
