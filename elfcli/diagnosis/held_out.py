"""Held-out loss: how well a network in training denoises and decodes examples that it never sees.

The slice, its noise and its times are fixed, so that the figures of a run differ by the weights alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from elfcli.diagnosis import probe
from elfcli.diagnosis.probe import Probe
from elfcli.errors import InputError
from elfcli.flow import objective, sampler
from elfcli.models.layers import map_position_chunks
from elfcli.parallel.mesh import everywhere, jit_on_mesh, on_devices
from elfcli.runs.examples import evaluation_examples
from elfcli.sampling.generate import SamplerStatics
from elfcli.sampling.model import LoadedModel

HELD_OUT_TIMES = tuple((2 * i + 1) / 16 for i in range(8))
"""The middles of eight equal parts of time."""
MAX_HELD_OUT = 64


class HeldOut(NamedTuple):
    """The slice of held-out examples, and the static arguments of `losses`."""

    program: SamplerStatics
    tried: Probe


def held_out(model: LoadedModel) -> HeldOut | None:
    """Return the first examples of the evaluation split with their latents and noise; None if nothing is held out."""
    try:
        examples = evaluation_examples(model.config)
    except InputError:
        return None
    numbers = np.arange(min(MAX_HELD_OUT, len(examples)))
    program = probe.probe_program(model, 1)
    return HeldOut(program, probe.on_examples(model, program, examples, numbers, 0))


def held_out_figures(slice_: HeldOut, weights: dict) -> dict[str, float]:
    """Return the figures of `weights` on the slice, over the tokens of its texts.

    `val_loss`: the two losses below, weighted as in training. `val_denoise_tT`: mean squared error of the estimate from
    latents at time T, in units of the latents' variance; `val_denoise_loss`: its mean. `val_decode_loss`: cross-entropy
    in nats of latents noised as in training, and `val_token_accuracy`; the same with `clean` for latents without noise.
    """
    found = jax.device_get(losses(slice_.program, on_devices(weights), slice_.tried))
    figures = {"val_denoise_loss": float(np.mean(found["denoise"]))}
    figures |= {f"val_denoise_t{t:.2f}": float(x) for t, x in zip(HELD_OUT_TIMES, found["denoise"], strict=True)}
    for prefix, (loss, accuracy) in zip(("val", "val_clean"), found["decode"], strict=True):
        figures |= {f"{prefix}_decode_loss": float(loss), f"{prefix}_token_accuracy": float(accuracy)}
    share = slice_.program.objective.decoder_prob
    together = (1 - share) * figures["val_denoise_loss"] + share * figures["val_decode_loss"]
    return {"val_loss": together, **figures}


@jit_on_mesh
def losses(program: SamplerStatics, params: Any, tried: Probe) -> dict[str, Array]:
    """Return `denoise` (T,) at HELD_OUT_TIMES; `decode` (2, 2): cross-entropy and accuracy of noised, clean latents."""
    model, condition, predict = probe.flow(program, params, tried)
    text = jnp.asarray(tried.text_BxS)

    def mean(values_BxS: Array) -> Array:
        return jnp.sum(values_BxS * text) / text.sum()

    def denoise(t: Array) -> Array:
        z = probe.noised_latents(program, tried, t)
        x, _ = predict(z, condition.keep(jnp.zeros_like(z)), jnp.full(len(z), t, jnp.float32))
        return mean(jnp.mean((x - tried.x0_BxSxE) ** 2, axis=-1))

    def read(features: Array, ids: Array) -> Array:
        """Return (cross-entropy, whether the token is right) of each position, (B, S, 2)."""
        logits = model.logits(features)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
        return jnp.stack([entropy, (jnp.argmax(logits, axis=-1) == ids).astype(jnp.float32)], axis=-1)

    def decode(z: Array) -> Array:
        features = sampler.decode_features(model, z, condition, tried.guidance)
        both = map_position_chunks(read, program.shape.vocab_size, features, jnp.asarray(tried.ids_BxS))
        return jnp.stack([mean(both[..., 0]), mean(both[..., 1])])

    batch, draws = probe.draw_for_probe(program, tried)
    noisy = objective.decode_input(batch, draws, program.objective)[0]
    found = {
        "denoise": jax.lax.map(denoise, jnp.asarray(HELD_OUT_TIMES, jnp.float32)),
        "decode": jnp.stack([decode(noisy), decode(jnp.asarray(tried.x0_BxSxE))]),
    }
    return everywhere(program, found)
