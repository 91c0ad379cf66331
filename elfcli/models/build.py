"""Derives the network's shape and arithmetic from the settings and the platform."""

from typing import Any

import jax
import jax.numpy as jnp

from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.models.elf import ElfShape
from elfcli.parallel.backend import cudnn_attention, multiplies_bfloat16


def arithmetic(config: Config, platform: str | None = None) -> tuple[Any, str]:
    """Return (dtype of activations, attention kernel) on `platform`; None: JAX's default.

    `auto`: bfloat16 on accelerators that multiply it, float32 on others and CPUs; the platform's fused kernel, if it
    has one for this dtype.
    Raises InputError if the requested kernel does not run on the platform.
    """
    platform, settings = platform or jax.default_backend(), config.training
    here = platform == jax.default_backend()
    slow = platform == "cpu" or (here and not multiplies_bfloat16(jax.local_devices()[0]))
    automatic = "float32" if slow else "bfloat16"
    dtype = jnp.dtype(automatic if settings.compute_dtype == "auto" else settings.compute_dtype)
    fused = {"tpu": "tpu", "gpu": "cudnn"}.get(platform, "plain")
    if settings.attention not in ("auto", "plain", fused):
        raise InputError(f"attention={settings.attention} does not run on {platform}; use attention=auto or plain")
    kernel = "plain" if settings.attention == "plain" else fused
    if kernel == "cudnn" and (dtype != jnp.bfloat16 or (here and not cudnn_attention(jax.local_devices()[0]))):
        kernel = "plain"
    return dtype, kernel


def elf_shape(config: Config, latent_dim: int, vocab: int, platform: str | None = None) -> ElfShape:
    """Return the network that the settings describe, on `platform`; None: JAX's default."""
    dtype, attention = arithmetic(config, platform)
    remat = config.training.remat
    if remat == "auto":  # time is scarcer than memory on a CPU
        remat = "none" if (platform or jax.default_backend()) == "cpu" else "dots"
    sizes = config.network.model_dump(exclude={"model", "attn_dropout"})
    self_cond, gradient_dtype = config.objective.self_cond_prob > 0, jnp.dtype(config.training.gradient_dtype)
    arithmetic_of = {"dtype": dtype, "remat": remat, "attention": attention, "gradient_dtype": gradient_dtype}
    automatic = (platform or jax.default_backend()) == "gpu" and remat != "full"
    unroll = {"auto": automatic, "all": True, "none": False}[config.training.unroll]
    return ElfShape(latent_dim, vocab, **sizes, self_cond=self_cond, unroll=unroll, **arithmetic_of)
