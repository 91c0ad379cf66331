"""The training objective (paper, training): denoise latents by flow matching, decode noisy latents into tokens.

Shapes: G groups of N examples (a batch of B = G N), S sequence, E latent width, H hidden width, V vocabulary.

A fixed share of each group decodes and the rest denoises, in one pass of the shared network. The sum of each branch is
divided by its share of the batch, so that its expectation over shuffled batches is the mean over the whole batch. With
`decoder_prob` as the weight of the decode branch, the expected gradient is that of the reference
(github.com/lillian039/ELF), where each device draws one branch per step.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elfcli.config.schema import ObjectiveSettings
from elfcli.flow.schedules import draw_times, logit_normal

Pair = tuple[Array, Array]
Key = Array | None


class Draws(NamedTuple):
    """All random numbers of one loss except dropout."""

    t_GxN: Array  # times of the denoise branch
    noise_GxNxSxE: Array  # standard normal, denoise branch
    self_cond_GxN: Array  # bool: the network gets the estimate of the first pass
    w_GxN: Array  # self-conditioning guidance scale
    decoder_lambda_GxNxSx1: Array  # share of the clean latent per token, decode branch
    decoder_noise_GxNxSxE: Array  # standard normal, decode branch
    drop_GxN: Array  # bool: the example's condition is dropped
    decode_GxN: Array  # bool: whether an example that is alone in its batch decodes
    sub_times_GxNxK: Array | None = None  # distillation only: times between which the teacher steps


class Batch(NamedTuple):
    """Tokens and their clean latents, in which dropped conditions are already zero."""

    ids_GxNxS: Array
    cond_GxNxS: Array  # bool: the position is part of the condition
    loss_GxNxS: Array  # bool: the position counts in the loss
    x0_GxNxSxE: Array


def draw(key: Array, cfg: ObjectiveSettings, shape: tuple[int, int, int, int]) -> Draws:
    """Draw the random numbers for latents of `shape` (G, N, S, E)."""
    G, N, S, _ = shape
    keys = iter(jax.random.split(key, 8))
    t = draw_times(next(keys), (G, N), cfg.time_schedule, cfg.denoiser_p_mean, cfg.denoiser_p_std)
    noise = jax.random.normal(next(keys), shape)
    u_GxN = jax.random.uniform(next(keys), (G, N))
    low, high = 1 + cfg.self_cond_cfg_min, 1 + cfg.self_cond_cfg_max
    w = low * (high / low) ** jax.random.uniform(next(keys), (G, N)) - 1
    decoder_lambda = logit_normal(next(keys), (G, N, S, 1), cfg.decoder_p_mean, cfg.decoder_p_std)
    decoder_noise = jax.random.normal(next(keys), shape)
    drop = jax.random.bernoulli(next(keys), cfg.label_drop_prob, (G, N))
    # The first floor(p n) of a group's n denoising examples are self-conditioned, and the next one is with probability
    # p n - floor(p n); p is self_cond_prob.
    num_decode, _ = branch_sizes(N, cfg)
    rank_N = jnp.arange(N) - num_decode
    self_cond = u_GxN < jnp.clip(cfg.self_cond_prob * (N - num_decode) - rank_N, 0, 1)
    decode = jax.random.bernoulli(next(keys), cfg.decoder_prob, (G, N))
    return Draws(t, noise, self_cond, w, decoder_lambda, decoder_noise, drop, decode)


def loss_mask(cond_BxS: Array, valid_BxS: Array, pad_token: str) -> Array:
    """Return (B, S) bool: positions that count in the loss. `eos` padding counts; the condition does not."""
    counted_BxS = valid_BxS if pad_token == "pad" else jnp.ones_like(valid_BxS)
    return counted_BxS & ~cond_BxS


def drop_condition(x0_BxSxE: Array, cond_BxS: Array, drop_B: Array) -> Array:
    """Return clean latents (B, S, E) that are zero at dropped conditions."""
    return jnp.where((cond_BxS & drop_B[:, None])[..., None], 0.0, x0_BxSxE)


def branch_sizes(group_size: int, cfg: ObjectiveSettings) -> tuple[int, int]:
    """Return (number of a group's examples that decode, number of the others that take the first pass).

    A group of one example cannot be divided: `branch_loss` chooses its branch by `decode_GxN`.
    """
    num_decode = round(group_size * cfg.decoder_prob)
    if group_size == 1 or 0 < cfg.decoder_prob < 1:
        num_decode = min(max(num_decode, 1), group_size - 1)
    return num_decode, math.ceil((group_size - num_decode) * cfg.self_cond_prob)


def denoise_input(batch: Batch, draws: Draws, cfg: ObjectiveSettings) -> Pair:
    """Return z = t x0 + (1 - t) scale noise (x0 at the condition) and the target velocity, each (G, N, S, E)."""
    t = draws.t_GxN[..., None, None]
    z = t * batch.x0_GxNxSxE + (1 - t) * draws.noise_GxNxSxE * cfg.denoiser_noise_scale
    z = jnp.where(batch.cond_GxNxS[..., None], batch.x0_GxNxSxE, z)
    return z, velocity(batch.x0_GxNxSxE, z, draws.t_GxN, cfg.t_eps)


def decode_input(batch: Batch, draws: Draws, cfg: ObjectiveSettings) -> Array:
    """Return the noisy latents (G, N, S, E) of the decode branch; the condition is noisy as well."""
    share = draws.decoder_lambda_GxNxSx1
    return share * batch.x0_GxNxSxE + (1 - share) * draws.decoder_noise_GxNxSxE * cfg.decoder_noise_scale


def velocity(x: Array, z: Array, t: Array, t_eps: float) -> Array:
    """Return the velocity (x - z) / max(1 - t, t_eps) from z (..., S, E) at time t (...) to x at time 1."""
    return (x - z) / jnp.maximum(1 - t, t_eps)[..., None, None]


def with_estimate(model: Any, z: Array, estimate: Array) -> Array:
    """Return the network's input (..., C): z (..., E), and also the estimate if the model is self-conditioned."""
    return jnp.concatenate([z, estimate], axis=-1) if model.shape.self_cond else z


def features_of(model: Any, inputs: Pair, batch: Batch, scalars: tuple[Array, ...], key: Key = None) -> Array:
    """Return features (G, N, S, H). inputs: latents and estimates (G, N, S, E). scalars: t, w and decode (G, N)."""
    arrays = with_estimate(model, *inputs), *scalars, batch.cond_GxNxS.sum(axis=-1)
    x_BxSxC, t_B, w_B, decode_B, start_B = (a.reshape(-1, *a.shape[2:]) for a in arrays)
    features = model(x_BxSxC, t_B, w_B if model.shape.num_self_cond_cfg_tokens else None, decode_B, start_B, key=key)
    return features.reshape(*batch.ids_GxNxS.shape, -1)


def split_loss(
    model: Any, batch: Batch, draws: Draws, cfg: ObjectiveSettings, counts: tuple[int, int], key: Key = None
) -> Pair:
    """Return the mean losses (denoise, decode) of one shared pass; 0 for a branch without examples.

    counts: (k, num_first) of `branch_sizes`. The first k examples of each group decode and the others denoise; the
    first num_first of these take the gradient-free first pass. key: dropout key of the pass with gradients.
    """
    (k, num_first), N = counts, batch.ids_GxNxS.shape[1]
    dec_batch, dec_draws = jax.tree.map(lambda a: a[:, :k], (batch, draws))
    den_batch, den_draws = jax.tree.map(lambda a: a[:, k:], (batch, draws))
    z_den, target = denoise_input(den_batch, den_draws, cfg)
    estimate = jnp.where(den_batch.cond_GxNxS[..., None], den_batch.x0_GxNxSxE, 0.0)
    if model.shape.self_cond and num_first:
        first = jax.tree.map(lambda a: a[:, :num_first], (den_batch, den_draws, z_den, estimate))
        first_estimate, uncond_v = first_pass(model, first, cfg.t_eps)
        estimate = jnp.concatenate([first_estimate, estimate[:, num_first:]], axis=1)
    z = jnp.concatenate([decode_input(dec_batch, dec_draws, cfg), z_den], axis=1)
    seen = jnp.concatenate([jnp.zeros_like(dec_batch.x0_GxNxSxE), estimate], axis=1)
    features = shared_pass(model, (z, seen), batch, draws, k, key)
    counted = jnp.maximum(batch.loss_GxNxS.sum(), 1)
    denoise_loss = decode_loss = jnp.zeros(())
    if k < N:
        v = velocity(model.denoise(features[:, k:]), z_den, den_draws.t_GxN, cfg.t_eps)
        if model.shape.self_cond and num_first and model.shape.num_self_cond_cfg_tokens:
            cond_v = v[:, :num_first]
            if model.shape.proj_dropout and key is not None:  # v_cond is without dropout
                cond_v = first_pass(model, (*first[:3], first_estimate), cfg.t_eps)[1]
            unguided, first_draws = target[:, :num_first], first[1]
            guided = unguided + (1 - 1 / first_draws.w_GxN)[..., None, None] * (cond_v - uncond_v)
            guided = jnp.where(first_draws.self_cond_GxN[..., None, None], guided, unguided)
            target = jnp.concatenate([guided, target[:, num_first:]], axis=1)
        error_GxNxS = jnp.mean((v - jax.lax.stop_gradient(target)) ** 2, axis=-1)
        denoise_loss = jnp.sum(error_GxNxS * den_batch.loss_GxNxS) / (counted * ((N - k) / N))
    if k:
        entropy_GxNxS = model.cross_entropy(features[:, :k], dec_batch.ids_GxNxS)
        decode_loss = jnp.sum(entropy_GxNxS * dec_batch.loss_GxNxS) / (counted * k / N)
    return denoise_loss, decode_loss


def shared_pass(model: Any, inputs: Pair, batch: Batch, draws: Draws, num_decode: int, key: Key = None) -> Array:
    """Return features (G, N, S, H). The first num_decode of a group decode, at time 1. inputs: latents, estimates."""
    decode = jnp.broadcast_to(jnp.arange(draws.t_GxN.shape[1]) < num_decode, draws.t_GxN.shape).astype(jnp.float32)
    t = jnp.where(decode == 1.0, 1.0, draws.t_GxN)
    return features_of(model, inputs, batch, (t, draws.w_GxN, decode), key)


def first_pass(model: Any, examples: tuple[Batch, Draws, Array, Array], t_eps: float) -> Pair:
    """Return (estimate, velocity) without gradient; only self-conditioned examples get a new estimate."""
    batch, draws, z, estimate = examples
    features = features_of(model, (z, estimate), batch, (draws.t_GxN, draws.w_GxN, jnp.zeros_like(draws.t_GxN)))
    x = jax.lax.stop_gradient(jnp.where(batch.cond_GxNxS[..., None], batch.x0_GxNxSxE, model.denoise(features)))
    return jnp.where(draws.self_cond_GxN[..., None, None], x, estimate), velocity(x, z, draws.t_GxN, t_eps)


def branch_loss(
    model: Any, batch: Batch, draws: Draws, cfg: ObjectiveSettings, key: Key = None, losses: Callable = split_loss
) -> tuple[Array, dict[str, Array]]:
    """Return (loss to minimize, {"denoise_loss", "decode_loss"}). losses: `split_loss`, or that of distillation.

    A batch of one example takes the branch that `decode_GxN` draws; the loss of the other branch is NaN.
    """
    G, N, _ = batch.ids_GxNxS.shape
    if G * N > 1:
        denoise, decode = losses(model, batch, draws, cfg, branch_sizes(N, cfg), key)
        loss = cfg.decoder_prob * decode + (1 - cfg.decoder_prob) * denoise
        return loss, {"denoise_loss": denoise, "decode_loss": decode}
    decodes = draws.decode_GxN[0, 0]
    loss = jax.lax.cond(
        decodes,
        lambda: losses(model, batch, draws, cfg, (1, 0), key)[1],
        lambda: losses(model, batch, draws, cfg, branch_sizes(1, cfg), key)[0],
    )
    return loss, {"denoise_loss": jnp.where(decodes, jnp.nan, loss), "decode_loss": jnp.where(decodes, loss, jnp.nan)}
