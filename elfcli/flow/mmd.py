"""MMD distillation and iterative refinement distillation (IRD): from a trained model to a generator of few passes.

The method is that of Drobyshevskiy et al. (arXiv 2610.06648; github.com/yandex-research/dlm-mmd), for free text.
Shapes as in objective.py, with M distilling examples in a group and T tokens in a kernel row.

The generator is the network's estimate at time 0, from noise z and its own last estimate. MMD moves it until the
features that a frozen copy has of generated tokens are distributed as those of real tokens. IRD then teaches a single
pass what several passes of the frozen MMD student give. The decode branch is that of ordinary training; both branches
weigh as much as they have examples. Padding counts as text, except in the decode branch.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elfcli.config.schema import DistillationSettings, ObjectiveSettings
from elfcli.flow import objective, sampler
from elfcli.flow.distill import flat
from elfcli.flow.objective import Batch, Draws, Key, Pair

NEAR_SHARE, MAX_UNEVEN = 0.02, 0.1  # of the share of a group that decodes from decoder_prob: negligible, and allowed


@dataclass(frozen=True)
class Mmd:
    """The objective of MMD. features: the frozen network up to the block that gives features. num_bootstrap: passes of
    the generator before the one that is trained. real_noise: standard normal (G, M, S, E)."""

    features: Any
    settings: DistillationSettings
    num_bootstrap: Array
    real_noise_GxMxSxE: Array

    def losses(
        self, model: Any, batch: Batch, draws: Draws, cfg: ObjectiveSettings, counts: tuple[int, int], key: Key = None
    ) -> Pair:
        """Return the losses (squared MMD, decode) of the generator `model`; arguments as in `objective.split_loss`."""
        draws, texts, text_draws, z = at_start(batch, draws, cfg, counts[0])
        current = jax.tree.map(jax.lax.stop_gradient, model)
        estimate = refined(current, texts, text_draws, cfg, z, self.num_bootstrap)
        x, decode_loss = generated(model, (z, estimate), batch, draws, cfg, key)
        x = jnp.where(texts.cond_GxNxS[..., None], texts.x0_GxNxSxE, x)
        real_noise = self.real_noise_GxMxSxE * cfg.denoiser_noise_scale
        fake = token_features(self.features, (x, z), texts, draws.w_GxN[:, counts[0] :], cfg)
        real = token_features(self.features, (texts.x0_GxNxSxE, real_noise), texts, draws.w_GxN[:, counts[0] :], cfg)
        return self.distance(jax.lax.stop_gradient(real), fake), decode_loss

    def distance(self, real_GxMxSxH: Array, fake_GxMxSxH: Array) -> Array:
        """Return the mean of `squared_mmd` over kernel rows, which pool the tokens of `kernel_texts` examples each."""
        G, M, S, H = real_GxMxSxH.shape
        size = self.settings.kernel_texts
        text_T = jnp.arange(size * S) // (S if self.settings.kernel_pairs == "texts" else 1)

        @jax.vmap
        @jax.checkpoint
        def of_row(real_TxH: Array, fake_TxH: Array) -> Array:
            return squared_mmd(real_TxH, fake_TxH, float(self.settings.sigma), text_T)

        # One kernel row of each group at a time: a kernel has T x T numbers.
        rows = (a.reshape(G, M // size, size * S, H).swapaxes(0, 1) for a in (real_GxMxSxH, fake_GxMxSxH))
        return jnp.mean(jax.lax.map(lambda row: of_row(*row), tuple(rows)))


@dataclass(frozen=True)
class Ird:
    """The objective of IRD. frozen: the MMD student, whose `passes` refinement passes one pass learns."""

    frozen: Any
    passes: int

    def losses(
        self, model: Any, batch: Batch, draws: Draws, cfg: ObjectiveSettings, counts: tuple[int, int], key: Key = None
    ) -> Pair:
        """Return the losses (squared error, decode) of the student `model`; arguments as in `objective.split_loss`."""
        draws, texts, text_draws, z = at_start(batch, draws, cfg, counts[0])
        target = refined(self.frozen, texts, text_draws, cfg, z, self.passes)
        x, decode_loss = generated(model, (z, refined(model, texts, text_draws, cfg, z, 0)), batch, draws, cfg, key)
        error_GxMxS = jnp.mean((x - target) ** 2, axis=-1)
        return jnp.sum(error_GxMxS * ~texts.cond_GxNxS) / jnp.sum(~texts.cond_GxNxS), decode_loss


def at_start(batch: Batch, draws: Draws, cfg: ObjectiveSettings, k: int) -> tuple[Draws, Batch, Draws, Array]:
    """Return (the draws at time 0, those of the examples after the first k and their draws, their noise z)."""
    draws = draws._replace(t_GxN=jnp.zeros_like(draws.t_GxN))
    texts, text_draws = jax.tree.map(lambda a: a[:, k:], (batch, draws))
    return draws, texts, text_draws, objective.denoise_input(texts, text_draws, cfg)[0]


def refined(model: Any, batch: Batch, draws: Draws, cfg: ObjectiveSettings, z: Array, passes: int | Array) -> Array:
    """Return the estimate (G, M, S, E) after refinement passes at noise z, without gradient; 0 is the cold start."""
    condition = sampler.Condition(flat(batch.cond_GxNxS), flat(batch.x0_GxNxSxE))
    guidance = sampler.Guidance(jnp.float32(1), flat(draws.w_GxN))
    predict = sampler.make_predict(model, condition, guidance, cfg.t_eps, use_cfg=False, use_w=False)
    noise, t = flat(z), flat(draws.t_GxN)
    x = jax.lax.fori_loop(0, passes, lambda i, x: predict(noise, x, t)[0], condition.keep(jnp.zeros_like(noise)))
    return jax.lax.stop_gradient(x.reshape(z.shape))


def generated(
    model: Any, inputs: Pair, batch: Batch, draws: Draws, cfg: ObjectiveSettings, key: Key = None
) -> tuple[Array, Array]:
    """Return the estimates (G, M, S, E) of a pass with gradient, and the decode branch's loss, a mean over tokens.

    inputs: z and the previous estimate of the M distilling examples; the examples before them decode.
    """
    k = batch.ids_GxNxS.shape[1] - inputs[0].shape[1]
    dec_batch, dec_draws = jax.tree.map(lambda a: a[:, :k], (batch, draws))
    decoded = objective.decode_input(dec_batch, dec_draws, cfg), jnp.zeros_like(dec_batch.x0_GxNxSxE)
    both = [jnp.concatenate(pair, axis=1) for pair in zip(decoded, inputs, strict=True)]
    features = objective.shared_pass(model, (both[0], both[1]), batch, draws, k, key)
    decode_loss = jnp.zeros(())
    if k:
        entropy_GxNxS = model.cross_entropy(features[:, :k], dec_batch.ids_GxNxS)
        decode_loss = jnp.sum(entropy_GxNxS * dec_batch.loss_GxNxS) / jnp.maximum(dec_batch.loss_GxNxS.sum(), 1)
    return model.denoise(features[:, k:]), decode_loss


def token_features(network: Any, inputs: Pair, batch: Batch, w_GxM: Array, cfg: ObjectiveSettings) -> Array:
    """Return the features (G, M, S, H), float32, of latents that also are the network's previous estimate.

    inputs: latents x and scaled noise, (G, M, S, E), which are mixed for time 1 - t_eps. The gradient flows through
    the mixture and the estimate.
    """
    x, noise = inputs
    t_GxM = jnp.full_like(w_GxM, 1 - cfg.t_eps)
    mixed = jnp.where(batch.cond_GxNxS[..., None], x, (1 - cfg.t_eps) * x + cfg.t_eps * noise)
    features = objective.features_of(network, (mixed, x), batch, (t_GxM, w_GxM, jnp.zeros_like(w_GxM)))
    return features.astype(jnp.float32)


def squared_mmd(real_TxH: Array, fake_TxH: Array, sigma: float, text_T: Array) -> Array:
    """Return the estimate of the squared maximum mean discrepancy between two samples of token features.

    Within a sample, tokens are compared with those of another `text_T` only, never with themselves. The result may be
    negative.
    """
    center_H = real_TxH.mean(axis=0)  # changes no distance, and keeps their digits
    x, y = real_TxH - center_H, fake_TxH - center_H
    others_TxT = text_T[:, None] != text_T
    pairs = jnp.maximum(others_TxT.sum(), 1)
    within_real, within_fake = (jnp.sum(kernel(a, a, sigma) * others_TxT) / pairs for a in (x, y))
    return within_real + within_fake - 2 * jnp.mean(kernel(x, y, sigma))


def kernel(a_TxH: Array, b_TxH: Array, sigma: float) -> Array:
    """Return exp(-|a - b|^2 / (2 sigma^2)) (T, T). Its product is in float32 also on accelerators, as it cancels."""
    product_TxT = jnp.matmul(a_TxH, b_TxH.T, precision=jax.lax.Precision.HIGHEST)
    distance_TxT = jnp.sum(a_TxH**2, axis=-1)[:, None] + jnp.sum(b_TxH**2, axis=-1) - 2 * product_TxT
    return jnp.exp(-jnp.maximum(distance_TxT, 0.0) / (2 * sigma**2))


def draw_passes(key: Array, settings: DistillationSettings) -> Array:
    """Draw the number of bootstrap passes: 0 with no_bootstrap_prob, else uniform up to max_bootstrap_steps."""
    none_key, count_key = jax.random.split(key)
    count = jax.random.randint(count_key, (), 1, settings.max_bootstrap_steps + 1)
    return jnp.where(jax.random.bernoulli(none_key, settings.no_bootstrap_prob), 0, count)


def by_share(cfg: ObjectiveSettings, group_size: int) -> ObjectiveSettings:
    """Return the settings with which `objective.branch_loss` weighs each branch by its share of the examples."""
    return cfg.model_copy(update={"decoder_prob": objective.branch_sizes(group_size, cfg)[0] / group_size})


def kernel_group(batch: int, device_share: int, cfg: ObjectiveSettings, kernel_texts: int) -> int | None:
    """Return the size of groups whose distilling examples make whole kernel rows, None if there is none.

    It divides the batch, and about the share decoder_prob of the examples decodes. Preferred are sizes that divide a
    device's share, that decode nearly this share, and that are near 16.
    """

    def decoding(size: int) -> int:
        return objective.branch_sizes(size, cfg)[0]

    def uneven(size: int) -> float:
        return abs(decoding(size) / size - cfg.decoder_prob)

    sizes = [size for size in range(2, batch + 1) if batch % size == 0 and uneven(size) <= MAX_UNEVEN]
    whole = [size for size in sizes if size > decoding(size) and (size - decoding(size)) % kernel_texts == 0]
    return min(
        whole, key=lambda size: (device_share % size != 0, max(uneven(size), NEAR_SHARE), abs(size - 16)), default=None
    )
