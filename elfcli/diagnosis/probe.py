"""Probes a network with real latents: denoises them from time t, decodes them, or resumes sampling from t.

Shapes: B examples, S sequence, E latent width, N vectors to look up, K latents of the bank.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from elfcli.data.folder import Examples
from elfcli.data.gaps import drawn_frame
from elfcli.data.tokenizers import eos_id
from elfcli.flow import objective, sampler
from elfcli.models.elf import ELF
from elfcli.models.encoder import encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.parallel.mesh import everywhere, jit_on_mesh, make_mesh, round_up_to_devices
from elfcli.runs.examples import gap_settings
from elfcli.sampling.generate import SamplerStatics, padded_batch
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import settings_of


class Probe(NamedTuple):
    """One batch of examples with their latents, and the key of the noise for it; all traced."""

    ids_BxS: Any
    cond_BxS: Any
    valid_BxS: Any
    x0_BxSxE: Any
    key: Any  # key data, uint32
    guidance: sampler.Guidance

    @property
    def text_BxS(self) -> Any:
        """Return the mask of the texts, without conditions and padding."""
        return self.valid_BxS & ~self.cond_BxS


def probe_program(model: LoadedModel, steps: int) -> SamplerStatics:
    """Return the static arguments of the functions below. steps: of `recovered`."""
    return SamplerStatics(model.shape, model.encoder.apply, model.config.objective, make_mesh(), steps)


@jit_on_mesh
def encoded(program: SamplerStatics, params: Any, ids_BxS: Array, mask_BxSxS: Array) -> Array:
    """Return the encoder's latents (B, S, E), not normalized."""
    return everywhere(program, program.encode(params, ids_BxS, mask_BxSxS))


def on_examples(
    model: LoadedModel, program: SamplerStatics, examples: Examples, numbers: np.ndarray, seed: int
) -> Probe:
    """Return the examples of these numbers. Some are repeated, so that all devices have equally many; their mask is
    empty, so that figures do not depend on the number of devices."""
    encoder, count = model.config.encoder, len(numbers)
    numbers = np.resize(numbers, round_up_to_devices(count))
    rows = [examples.tokens[i] for i in numbers.tolist()]
    if model.config.data.gaps:
        gaps = gap_settings(model.config, eos_id(model.tokenizer))
        numbered = zip(rows, numbers.tolist(), strict=True)
        rows = [drawn_frame(row["input_ids"], gaps, i, 0).example() for row, i in numbered]
    batch = padded_batch(model, rows)
    ids, cond, valid = (batch[name] for name in ("input_ids", "cond_mask", "valid_mask"))
    mask = np.asarray(encoder_mask(jnp.asarray(cond), jnp.asarray(valid), jnp.zeros(len(ids), bool)))
    latents = np.asarray(encoded(program, model.encoder.params, ids, mask))
    valid = valid & (cond | (np.arange(len(ids)) < count)[:, None])
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    w = settings_of(model.config.sampling)[0].self_cond_scale
    guidance = jax.tree.map(np.asarray, sampler.Guidance(jnp.float32(1), jnp.float32(w)))  # all processes take these
    return Probe(ids, cond, valid, (latents - float(encoder.latent_mean)) / float(encoder.latent_std), key, guidance)


@jit_on_mesh
def denoised(program: SamplerStatics, params: Any, probe: Probe, t: Any) -> tuple[Array, Array]:
    """Return (latents noised to time t, the network's estimate of the clean ones), each (B, S, E)."""
    _, condition, predict = flow(program, params, probe)
    z = noised_latents(program, probe, t)
    x, _ = predict(z, condition.keep(jnp.zeros_like(z)), jnp.full(len(z), t, jnp.float32))
    return everywhere(program, (z, x))


@jit_on_mesh
def recovered(program: SamplerStatics, params: Any, probe: Probe, t: Any) -> Array:
    """Return the tokens (B, S) that even steps of the ODE reach from latents noised to time t."""
    model, condition, predict = flow(program, params, probe)
    z = noised_latents(program, probe, t)
    grid_M = (t + (1 - t) * jnp.linspace(0.0, 1.0, program.longest + 1)).at[-1].set(1.0)
    grid_BxM = jnp.broadcast_to(grid_M, (len(z), len(grid_M)))
    z, _ = sampler.solve(predict, z, condition, grid_BxM, lambda i: jnp.zeros_like(z), 0.0)
    return everywhere(program, sampler.decode(model, z, condition, probe.guidance))


@jit_on_mesh
def reconstructed(program: SamplerStatics, params: Any, probe: Probe) -> tuple[Array, Array, Array, Array]:
    """Return the tokens (B, S) of clean latents and of latents noised as in training; the latter, their clean share."""
    model, condition, _ = flow(program, params, probe)
    batch, draws = draw_for_probe(program, probe)
    z = objective.decode_input(batch, draws, program.objective)[0]
    clean, noised = (sampler.decode(model, x, condition, probe.guidance) for x in (probe.x0_BxSxE, z))
    return everywhere(program, (clean, noised, z, draws.decoder_lambda_GxNxSx1[0]))


@jit_on_mesh
def decoder_input(program: SamplerStatics, probe: Probe) -> tuple[Array, Array]:
    """Return latents (B, S, E) noised as for the decoder in training, and their clean share (B, S, 1)."""
    batch, draws = draw_for_probe(program, probe)
    z = objective.decode_input(batch, draws, program.objective)[0]
    return everywhere(program, (z, draws.decoder_lambda_GxNxSx1[0]))


@jit_on_mesh
def noised(program: SamplerStatics, probe: Probe, t: Any) -> Array:
    """Return the latents (B, S, E) noised to time t."""
    return everywhere(program, noised_latents(program, probe, t))


def flow(program: SamplerStatics, params: Any, probe: Probe) -> tuple[ELF, sampler.Condition, sampler.Predict]:
    """Return (network, condition, guided network as a function of latents, estimate and time)."""
    model = nnx.merge(graphdef_of(ELF, program.shape), params)
    condition, t_eps = sampler.Condition(probe.cond_BxS, probe.x0_BxSxE), program.objective.t_eps
    return model, condition, sampler.make_predict(model, condition, probe.guidance, t_eps, use_cfg=False, use_w=False)


def draw_for_probe(program: SamplerStatics, probe: Probe) -> tuple[objective.Batch, objective.Draws]:
    """Return the objective's batch and draws, one group of all examples."""
    ids, cond, text, x0 = (a[None] for a in (probe.ids_BxS, probe.cond_BxS, probe.text_BxS, probe.x0_BxSxE))
    draws = objective.draw(jax.random.wrap_key_data(probe.key), program.objective, x0.shape)
    return objective.Batch(ids, cond, text, x0), draws


def noised_latents(program: SamplerStatics, probe: Probe, t: Any) -> Array:
    """Return the latents (B, S, E) noised to time t, those of the condition unchanged."""
    batch, draws = draw_for_probe(program, probe)
    draws = draws._replace(t_GxN=jnp.full_like(draws.t_GxN, t))
    return objective.denoise_input(batch, draws, program.objective)[0][0]


def nearest(z_NxE: np.ndarray, share_N: Any, bank_KxE: np.ndarray) -> np.ndarray:
    """Return the indices (N,) of the bank's latents x for which z is most likely share * x plus noise."""
    share = np.broadcast_to(share_N, len(z_NxE))[:, None]
    return np.argmax(share * (z_NxE @ bank_KxE.T) - share**2 * (bank_KxE**2).sum(axis=1) / 2, axis=1)
