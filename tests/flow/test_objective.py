"""The shared pass equals the reference's objective: in expectation, per group, and with dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elfcli.config.schema import ObjectiveSettings
from elfcli.flow import objective
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.encoder import encoder_mask
from elfcli.models.layers import graphdef_of

B, S, E, V = 4, 5, 6, 11
SHAPE = ElfShape(E, V, depth=1, hidden_size=16, num_heads=2, bottleneck_dim=4)


@pytest.fixture(scope="module")
def params():
    params = init_params(SHAPE, jax.random.key(0))
    # The final layer starts at zero, so half of the gradients would vanish.
    kernel = params["final_layer"]["linear"]["kernel"]
    params["final_layer"]["linear"]["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), kernel.shape)
    return params


def make_batch(key) -> objective.Batch:
    """Return a batch whose conditions and lengths differ, so that weighting by tokens matters."""
    ids = jax.random.randint(key, (B, S), 0, V)
    position = jnp.arange(S)[None]
    cond = position < jnp.array([0, 1, 2, 1])[:, None]
    valid = position < jnp.array([5, 3, 4, 5])[:, None]
    return objective.Batch(ids, cond, objective.loss_mask(cond, valid, "pad"), jax.random.normal(key, (B, S, E)))


def in_groups(tree, groups=1):
    return jax.tree.map(lambda a: a.reshape(groups, -1, *a.shape[1:]), tree)


def draw(key, cfg, groups=1) -> objective.Draws:
    return objective.draw(key, cfg, (groups, B // groups, S, E))


def loss_of(shape, params, batch, draws, cfg, key=None):
    """Return (the loss to minimize, its parts by name) of a batch, divided into groups like its draws."""
    model = nnx.merge(graphdef_of(ELF, shape), params)
    return objective.branch_loss(model, in_groups(batch, len(draws.t_GxN)), draws, cfg, key)


def whole_batch_loss(params, batch, draws, cfg, *, decode: bool):
    """Return the loss if every example decodes, or if every example denoises."""
    model = nnx.merge(graphdef_of(ELF, SHAPE), params)
    counts = (B, 0) if decode else (0, B)
    return objective.split_loss(model, in_groups(batch), draws, cfg, counts)[int(decode)]


def coin_loss(params, batch, key, cfg):
    """Return the reference's loss: one coin per step chooses the branch; each example draws its self-conditioning."""
    coin_key, flag_key, key = jax.random.split(key, 3)
    flags = jax.random.bernoulli(flag_key, cfg.self_cond_prob, (1, B))
    draws = draw(key, cfg)._replace(self_cond_GxN=flags)
    both = [whole_batch_loss(params, batch, draws, cfg, decode=decode) for decode in (False, True)]
    return jnp.where(jax.random.bernoulli(coin_key, cfg.decoder_prob), both[1], both[0])


def split_loss(params, batch, key, cfg):
    return loss_of(SHAPE, params, batch, draw(key, cfg), cfg)[0]


def test_the_split_has_the_expected_gradient_of_the_coin(params):
    """Mean gradients over many shuffled batches and draws agree within their standard errors, leaf by leaf."""
    batch, count = make_batch(jax.random.key(2)), 3000
    cfg, moments = ObjectiveSettings(decoder_noise_scale=1.0, decoder_prob=0.3), []
    for loss in (split_loss, coin_loss):

        def gradient(key, loss=loss):
            order_key, key = jax.random.split(key)
            order = jax.random.permutation(order_key, B)
            shuffled = jax.tree.map(lambda a: a[order], batch)
            grads = jax.grad(loss)(params, shuffled, key, cfg)
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

        run = jax.jit(lambda keys, gradient=gradient: jax.lax.map(gradient, keys, batch_size=100))
        grads = np.asarray(run(jax.random.split(jax.random.key(3), count)))
        moments.append((grads.mean(0), grads.std(0) / np.sqrt(count)))
    (split, split_error), (coin, coin_error) = moments
    z = (split - coin) / np.sqrt(split_error**2 + coin_error**2 + 1e-12)
    assert np.abs(coin).max() > 0.1, "the gradient is not just noise"
    assert np.abs(z).mean() < 1.1  # a standard normal has 0.8
    assert np.abs(z).max() < 6
    # The measure is sensitive enough to detect a branch weight that is wrong by 10%.
    assert np.abs((split * 1.1 - coin) / (coin_error + 1e-12)).max() > 6


def test_groups_are_independent_batches(params):
    """Two groups in one call equal the two halves alone; the losses average if the token counts are equal."""
    cfg = ObjectiveSettings(decoder_noise_scale=1.0, decoder_prob=0.25)
    batch = make_batch(jax.random.key(4))
    batch = batch._replace(cond_GxNxS=jnp.zeros((B, S), bool), loss_GxNxS=jnp.ones((B, S), bool))
    draws = draw(jax.random.key(5), cfg, groups=2)
    _, both = loss_of(SHAPE, params, batch, draws, cfg)
    halves = []
    for group in range(2):
        half = jax.tree.map(lambda a, group=group: a[2 * group : 2 * group + 2], batch)
        own = jax.tree.map(lambda a, group=group: a[group : group + 1], draws)
        halves.append(loss_of(SHAPE, params, half, own, cfg)[1])
    for name in both:
        np.testing.assert_allclose(both[name], np.mean([half[name] for half in halves]), rtol=1e-5)


@pytest.mark.parametrize("probability", [0.1, 0.3])
def test_branches_are_weighted_by_their_probability(params, probability):
    """This test is exact; the statistical test above would miss a decode weight that is wrong by 10%."""
    cfg = ObjectiveSettings(decoder_prob=probability)
    loss, parts = loss_of(SHAPE, params, make_batch(jax.random.key(8)), draw(jax.random.key(9), cfg), cfg)
    expected = probability * parts["decode_loss"] + (1 - probability) * parts["denoise_loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(("batch_size", "probability"), [(16, 0.2), (3, 0.2), (2, 0.9), (10, 0.0), (10, 1.0)])
def test_shares(batch_size, probability):
    cfg = ObjectiveSettings(decoder_prob=probability, self_cond_prob=0.5)
    decode, first = objective.branch_sizes(batch_size, cfg)
    assert (decode == 0) == (probability == 0)
    assert (decode == batch_size) == (probability == 1)
    assert first == -(-(batch_size - decode) // 2)


def test_self_conditioned_share_is_met_on_average():
    cfg = ObjectiveSettings(decoder_prob=0.2, self_cond_prob=0.3)
    decode, first = objective.branch_sizes(10, cfg)
    draw = jax.vmap(lambda key: objective.draw(key, cfg, (1, 10, 1, 1)).self_cond_GxN[0])
    flags = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))[:, decode:]
    assert abs(flags.mean() - 0.3) < 0.005
    assert not flags[:, first:].any()


def test_dropout_draws_from_its_key(params):
    cfg = ObjectiveSettings(decoder_noise_scale=1.0)
    shape = ElfShape(**{**vars(SHAPE), "depth": 4, "proj_dropout": 0.2})
    params = init_params(shape, jax.random.key(0))
    params["final_layer"]["linear"]["kernel"] += 0.1
    batch, draws = make_batch(jax.random.key(6)), draw(jax.random.key(7), cfg)
    losses = [float(loss_of(shape, params, batch, draws, cfg, key)[0]) for key in map(jax.random.key, (0, 0, 1))]
    without = float(loss_of(shape, params, batch, draws, cfg, None)[0])
    assert losses[0] == losses[1] != losses[2]
    assert without not in losses


def test_encoder_mask():
    cond = jnp.array([[1, 1, 0, 0, 0]], bool)
    valid = jnp.array([[1, 1, 1, 1, 0]], bool)
    kept = np.asarray(encoder_mask(cond, valid, jnp.array([False])))[0].astype(int)
    assert kept.tolist() == [[1, 1, 0, 0, 0]] * 2 + [[1, 1, 1, 1, 0]] * 3
    dropped = np.asarray(encoder_mask(cond, valid, jnp.array([True])))[0].astype(int)
    assert dropped.tolist() == [[1, 1, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 0]] * 3


def test_a_batch_of_one_takes_the_branch_of_its_draw(params):
    """The branch that is not taken has no loss, and the share of decoding batches is decoder_prob."""
    cfg = ObjectiveSettings(decoder_noise_scale=1.0, decoder_prob=0.3)
    one = jax.tree.map(lambda a: a[None, :1], make_batch(jax.random.key(8)))
    model = nnx.merge(graphdef_of(ELF, SHAPE), params)
    draws = objective.draw(jax.random.key(9), cfg, (1, 1, S, E))
    both = [objective.split_loss(model, one, draws, cfg, counts) for counts in (objective.branch_sizes(1, cfg), (1, 0))]
    for decodes, (denoise, decode) in zip((False, True), both, strict=True):
        chosen = draws._replace(decode_GxN=jnp.array([[decodes]]))
        loss, parts = objective.branch_loss(model, one, chosen, cfg)
        assert float(loss) == pytest.approx(float(decode if decodes else denoise), rel=1e-6)
        assert np.isnan(parts["denoise_loss"]) == decodes and np.isnan(parts["decode_loss"]) == (not decodes)
    drawn = jax.vmap(lambda key: objective.draw(key, cfg, (1, 1, 1, 1)).decode_GxN[0, 0])
    assert abs(np.asarray(drawn(jax.random.split(jax.random.key(0), 4000))).mean() - 0.3) < 0.03


def test_every_draw_has_the_references_distribution():
    """Quartiles of the formulas: sigmoid(m + s n) of times and clean shares, 1.5 * 4^u - 1 of guidance scales."""
    cfg = ObjectiveSettings(
        denoiser_p_mean=-1.5, denoiser_p_std=0.8, decoder_p_mean=0.8, decoder_p_std=0.8, label_drop_prob=0.1,
        decoder_prob=0.2, self_cond_cfg_min=0.5, self_cond_cfg_max=5.0,
    )  # fmt: skip
    draws = objective.draw(jax.random.key(0), cfg, (400, 16, 8, 4))
    normal = (-0.6745, 0.0, 0.6745)
    for values, quartiles in (
        (draws.t_GxN, (0.1151, 0.1824, 0.2768)),
        (draws.w_GxN, (1.1213, 2.0, 3.2426)),
        (draws.decoder_lambda_GxNxSx1, (0.5648, 0.69, 0.7924)),
        (draws.noise_GxNxSxE, normal),
        (draws.decoder_noise_GxNxSxE, normal),
    ):
        near = 0.04 * (quartiles[2] - quartiles[0])
        np.testing.assert_allclose(np.quantile(np.asarray(values), (0.25, 0.5, 0.75)), quartiles, atol=near)
    assert abs(draws.drop_GxN.mean() - 0.1) < 0.015 and abs(draws.decode_GxN.mean() - 0.2) < 0.02
    uniform = objective.draw(jax.random.key(0), cfg.model_copy(update={"time_schedule": "uniform"}), (400, 16, 1, 1))
    np.testing.assert_allclose(np.quantile(np.asarray(uniform.t_GxN), (0.25, 0.5, 0.75)), (0.25, 0.5, 0.75), atol=0.02)
