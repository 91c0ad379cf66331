"""Known text guides a network that was trained on free texts, so that it continues and fills.

Shapes: B batch, S sequence, E latent width.
"""

import jax
import jax.numpy as jnp
from jax import Array

from elfcli.flow.objective import Pair, velocity
from elfcli.flow.sampler import Condition, Predict

MIN_TIME = 0.05  # the shift is divided by the time


def guided_by(predict: Predict, known: Condition, noise_scale: float, t_eps: float) -> Predict:
    """Return a network that was trained on free texts, guided by the latents of a text's known positions.

    The estimate of the known latents moves with z everywhere, and its error pulls the other positions: reconstruction
    guidance (Ho et al. 2022), here with twice the weight of Song et al. 2023 (pseudoinverse guidance, latents of
    variance 1 and noise of this scale). A position is shifted by at most a latent's length. Costs a backward pass.
    """

    def guided(z: Array, estimate: Array, t: Array) -> Pair:
        def error(z: Array) -> Pair:
            x, _ = predict(z, estimate, t)
            missed = jnp.where(known.mask_BxS[..., None], x - known.latents_BxSxE, 0.0)
            return jnp.sum(missed**2), x

        slope, x = jax.grad(error, has_aux=True)(z)
        time = jnp.maximum(t, MIN_TIME)[:, None, None]
        shift = slope * (time**2 + ((1 - time) * noise_scale) ** 2) / time
        longest = jnp.sqrt(x.shape[-1]) / jnp.maximum(jnp.linalg.norm(shift, axis=-1, keepdims=True), 1e-6)
        x = known.keep(x - shift * jnp.minimum(longest, 1.0))
        return x, velocity(x, z, t, t_eps)

    return guided
