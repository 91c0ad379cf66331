"""The training objective (paper section 4): denoise latents by flow matching, decode noisy latents into tokens.

Draws and computation are apart: `draw` takes the key, everything else is a pure function of arrays.
Shapes: B batch, S sequence, E latent width, V vocabulary.

Of each batch a fixed share decodes and the rest denoises, in one pass of the shared network. Each branch's sum is
scaled by (batch / its share), so that its expectation over shuffled batches is the mean over the whole batch, and
weighted by `decoder_prob`: the expected gradient is that of the reference, whose devices flip a coin per step.
Only self-conditioned examples go through the gradient-free first pass, and only decoding ones get logits.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec

from elfcli.config.schema import Objective
from elfcli.flow.schedules import draw_times, logit_normal

Array = jax.Array


class Draws(NamedTuple):
    """Everything random in one loss, apart from dropout."""

    t_B: Array  # times of the denoise branch
    noise_BxSxE: Array  # standard normal, denoise branch
    self_cond_B: Array  # bool: the example sees the first pass's estimate
    w_B: Array  # self-conditioning guidance scale
    decoder_lambda_BxSx1: Array  # share of the clean latent per token, decode branch
    decoder_noise_BxSxE: Array  # standard normal, decode branch
    drop_B: Array  # bool: the example's condition is dropped
    coin: Array | None  # (groups,) bool: all of a device's examples decode (`branching = "device"` only)


class Batch(NamedTuple):
    """Tokens and their clean latents, dropped conditions already zeroed."""

    ids_BxS: Array
    cond_BxS: Array  # bool: position lies in the condition
    loss_BxS: Array  # bool: position counts in the loss
    x0_BxSxE: Array


def draw(key, cfg: Objective, shape: tuple[int, int, int], groups: int = 1) -> Draws:
    """Draws for latents of `shape` (B, S, E) in `groups` equal parts, as `branch_loss` shares them out."""
    B, S, _ = shape
    keys = iter(jax.random.split(key, 8))
    t_B = draw_times(next(keys), (B,), cfg.time_schedule, cfg.denoiser_p_mean, cfg.denoiser_p_std)
    noise = jax.random.normal(next(keys), shape)
    u_B = jax.random.uniform(next(keys), (B,))
    low, high = 1 + cfg.self_cond_cfg_min, 1 + cfg.self_cond_cfg_max
    w_B = low * (high / low) ** jax.random.uniform(next(keys), (B,)) - 1
    decoder_lambda = logit_normal(next(keys), (B, S, 1), cfg.decoder_p_mean, cfg.decoder_p_std)
    decoder_noise = jax.random.normal(next(keys), shape)
    drop_B = jax.random.bernoulli(next(keys), cfg.label_drop_prob, (B,))
    # Of those that denoise the first are self-conditioned, and the next one with what is left of the share.
    num_decode, _ = shares(B // groups, cfg)
    rank_B = jnp.arange(B) % (B // groups) - num_decode
    self_cond_B = u_B < jnp.clip(cfg.self_cond_prob * (B // groups - num_decode) - rank_B, 0, 1)
    coin = jax.random.bernoulli(next(keys), cfg.decoder_prob, (groups,))
    return Draws(t_B, noise, self_cond_B, w_B, decoder_lambda, decoder_noise, drop_B, coin)


def encoder_mask(cond_BxS, valid_BxS, drop_B):
    """(B, S, S) bool, rows attend to columns: condition rows to the condition, the others to all valid columns.

    Where the condition is dropped, rows outside of it no longer see it.
    """
    row, column = cond_BxS[:, :, None], cond_BxS[:, None, :]
    mask = jnp.where(row, column, valid_BxS[:, None, :])
    return mask & ~(drop_B[:, None, None] & ~row & column)


def loss_mask(cond_BxS, valid_BxS, pad_token: str):
    """(B, S) bool: with `eos` padding the model learns to emit the padding; the condition never counts."""
    counted = valid_BxS if pad_token == "pad" else jnp.ones_like(valid_BxS)
    return counted & ~cond_BxS


def drop_condition(x0_BxSxE, cond_BxS, drop_B):
    """Clean latents with the dropped examples' condition positions at zero."""
    return jnp.where((cond_BxS & drop_B[:, None])[..., None], 0.0, x0_BxSxE)


def shares(batch_size: int, cfg: Objective) -> tuple[int, int]:
    """(examples that decode, examples among the rest that take the first pass), fixed by the settings.

    Where the whole batch takes one branch (`device`, or a batch of one) the first is 0.
    """
    if flips_coin(batch_size, cfg):
        num_decode = 0
    elif cfg.decoder_prob in (0.0, 1.0):
        num_decode = round(batch_size * cfg.decoder_prob)
    else:
        num_decode = min(max(round(batch_size * cfg.decoder_prob), 1), batch_size - 1)
    return num_decode, math.ceil((batch_size - num_decode) * cfg.self_cond_prob)


def num_groups(batch_size: int, cfg: Objective, num_devices: int) -> int:
    """Equal parts of a batch, each of which has the same shares; they do not depend on the devices, so that a run
    goes on the same on others. With `branching = "device"` a part is what a device has."""
    if cfg.branching == "device":
        return num_devices
    whole_parts = (size for size in range(16, 7, -1) if batch_size % size == 0)
    return batch_size // (cfg.group_size or next(whole_parts, batch_size))


def flips_coin(batch_size: int, cfg: Objective) -> bool:
    """Whether the whole batch takes one branch per step."""
    return cfg.branching == "device" or batch_size == 1


def denoise_input(batch: Batch, draws: Draws, cfg: Objective):
    """Noisy latent z of the denoise branch and its target velocity (x0 - z) / max(1 - t, t_eps)."""
    t = draws.t_B[:, None, None]
    z = t * batch.x0_BxSxE + (1 - t) * draws.noise_BxSxE * cfg.denoiser_noise_scale
    z = jnp.where(batch.cond_BxS[..., None], batch.x0_BxSxE, z)
    return z, velocity(batch.x0_BxSxE, z, draws.t_B, cfg.t_eps)


def decode_input(batch: Batch, draws: Draws, cfg: Objective):
    """Noisy latent of the decode branch; every position is noised, those of the condition too."""
    share = draws.decoder_lambda_BxSx1
    return share * batch.x0_BxSxE + (1 - share) * draws.decoder_noise_BxSxE * cfg.decoder_noise_scale


def velocity(x, z, t_B, t_eps: float):
    """Velocity that leads from z at time t to the estimate x."""
    return (x - z) / jnp.maximum(1 - t_B, t_eps)[:, None, None]


def with_estimate(model, z, estimate):
    """The network's input: z, and the previous estimate beside it if the model is self-conditioned."""
    return jnp.concatenate([z, estimate], axis=-1) if model.shape.self_cond else z


def split_loss(
    model, batch: Batch, draws: Draws, cfg: Objective, num_decode: int, num_first: int, key=None, groups=1
):
    """Mean losses (denoise, decode) of one shared pass; a branch without examples gives 0.

    Of each of the `groups` equal parts of the batch (whole parts on a device: no example changes it) the first
    `num_decode` examples decode, the others denoise, and `num_first` of those take the gradient-free first pass.
    self_cond draws count only for those. key: dropout key or None.
    """
    B = batch.ids_BxS.shape[0]
    per_group = B // groups
    counted = jnp.maximum(batch.loss_BxS.sum(), 1)
    dec_batch, dec_draws = rows((batch, draws._replace(coin=None)), 0, num_decode, groups)
    den_batch, den_draws = rows((batch, draws._replace(coin=None)), num_decode, per_group, groups)
    keys = (None, None, None) if key is None else jax.random.split(key, 3)
    guided = model.shape.self_cond and model.shape.num_self_cond_cfg_tokens > 0

    z_den, target = denoise_input(den_batch, den_draws, cfg)
    clean = jnp.where(den_batch.cond_BxS[..., None], den_batch.x0_BxSxE, 0.0)
    estimate = clean
    if model.shape.self_cond and num_first:
        first = rows((den_batch, den_draws, z_den, clean), 0, num_first, groups)
        estimate_1, uncond_v = first_pass(model, first, cfg, keys[0])
        estimate = place(estimate_1, clean, num_first, groups)

    z = join(decode_input(dec_batch, dec_draws, cfg), z_den, groups)
    estimate = join(jnp.zeros_like(dec_batch.x0_BxSxE), estimate, groups)
    t = join(jnp.ones_like(dec_draws.t_B), den_draws.t_B, groups)
    decode = join(jnp.ones_like(dec_draws.t_B), jnp.zeros_like(den_draws.t_B), groups)
    w = draws.w_B if model.shape.num_self_cond_cfg_tokens else None
    features = model(with_estimate(model, z, estimate), t, w, decode, key=keys[1])

    denoise_loss = decode_loss = jnp.zeros(())
    if num_decode < per_group:
        v = velocity(model.denoise(rows(features, num_decode, per_group, groups)), z_den, den_draws.t_B, cfg.t_eps)
        if guided and num_first:
            cond_v = v
            if model.shape.has_dropout:  # pass 2 has dropout masks of its own, so it is no sample of v_cond
                den_estimate = rows(estimate, num_decode, per_group, groups)
                again = model(with_estimate(model, z_den, den_estimate), den_draws.t_B, den_draws.w_B,
                              jnp.zeros_like(den_draws.t_B), key=keys[2])  # fmt: skip
                cond_v = velocity(model.denoise(again), z_den, den_draws.t_B, cfg.t_eps)
            target = guided_target(target, cond_v, place(uncond_v, cond_v, num_first, groups), den_draws)
        error_BxS = jnp.mean((v - jax.lax.stop_gradient(target)) ** 2, axis=-1)
        share = (per_group - num_decode) / per_group
        denoise_loss = jnp.sum(error_BxS * den_batch.loss_BxS) / (counted * share)
    if num_decode:
        logits = model.logits(rows(features, 0, num_decode, groups))
        entropy_BxS = optax.softmax_cross_entropy_with_integer_labels(logits, dec_batch.ids_BxS)
        decode_loss = jnp.sum(entropy_BxS * dec_batch.loss_BxS) / (counted * num_decode / per_group)
    return denoise_loss, decode_loss


def first_pass(model, examples, cfg: Objective, key):
    """Gradient-free pass without an estimate, over (batch, draws, z, clean): (next estimate, velocity)."""
    batch, draws, z, clean = examples
    w = draws.w_B if model.shape.num_self_cond_cfg_tokens else None
    features = model(with_estimate(model, z, clean), draws.t_B, w, jnp.zeros_like(draws.t_B), key=key)
    x = jnp.where(batch.cond_BxS[..., None], batch.x0_BxSxE, model.denoise(features))
    x = jax.lax.stop_gradient(x)
    estimate = jnp.where(draws.self_cond_B[:, None, None], x, clean)
    return estimate, velocity(x, z, draws.t_B, cfg.t_eps)


def guided_target(target, cond_v, uncond_v, draws: Draws):
    """v* + (1 - 1/w)(v_cond - v_uncond) for self-conditioned examples, v* for the others."""
    guidance = (1 - 1 / draws.w_B)[:, None, None] * (cond_v - uncond_v)
    return jnp.where(draws.self_cond_B[:, None, None], target + guidance, target)


def branch_loss(model, batch: Batch, draws: Draws, cfg: Objective, key=None, groups=1):
    """The loss to minimise and its parts {"denoise_loss", "decode_loss"}.

    With `branching = "device"` the branch that no device's coin chose is reported as NaN.
    """
    per_group = batch.ids_BxS.shape[0] // groups
    num_decode, num_first = shares(per_group, cfg)
    if not flips_coin(per_group, cfg):
        denoise, decode = split_loss(model, batch, draws, cfg, num_decode, num_first, key, groups)
        loss = cfg.decoder_prob * decode + (1 - cfg.decoder_prob) * denoise
        return loss, {"denoise_loss": denoise, "decode_loss": decode}
    loss, denoise, decode = coin_loss(model, batch, draws, cfg, key, groups)
    return loss.mean(), {"denoise_loss": jnp.nanmean(denoise), "decode_loss": jnp.nanmean(decode)}


def coin_loss(model, batch: Batch, draws: Draws, cfg: Objective, key, groups: int):
    """(loss, denoise, decode), each (groups,): every device's own examples take the branch that its coin chose."""
    graphdef, params = nnx.split(model)

    def one_device(params, batch, draws, key):
        model, num_examples = nnx.merge(graphdef, params), batch.ids_BxS.shape[0]
        if key is not None and groups > 1:
            key = jax.random.fold_in(key, jax.lax.axis_index(axes))

        def decode_all():
            loss = split_loss(model, batch, draws, cfg, num_examples, 0, key)[1]
            return loss, jnp.nan, loss

        def denoise_all():
            loss = split_loss(model, batch, draws, cfg, 0, shares(num_examples, cfg)[1], key)[0]
            return loss, loss, jnp.nan

        return jax.tree.map(jnp.atleast_1d, jax.lax.cond(draws.coin[0], decode_all, denoise_all))

    if groups == 1:
        return one_device(params, batch, draws, key)
    axes = jax.sharding.get_abstract_mesh().axis_names
    by_device, everywhere = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        one_device, in_specs=(everywhere, by_device, by_device, everywhere), out_specs=by_device, check_vma=False
    )(params, batch, draws, key)


def rows(tree, start: int, stop: int, groups: int):
    """Rows start..stop of each of `groups` equal parts of the leading axis."""

    def pick(a):
        return a.reshape(groups, -1, *a.shape[1:])[:, start:stop].reshape(-1, *a.shape[1:])

    return jax.tree.map(pick, tree)


def join(first, second, groups: int):
    """Per group, the rows of `first` followed by those of `second`: the inverse of two calls of `rows`."""
    parts = [a.reshape(groups, a.shape[0] // groups, *a.shape[1:]) for a in (first, second)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *first.shape[1:])


def place(first, whole, count: int, groups: int):
    """`whole` with the first `count` rows of each group replaced by `first`."""
    return join(first, rows(whole, count, whole.shape[0] // groups, groups), groups)
