"""Derives the network's shape and arithmetic from the settings and the platform."""

from typing import Any

import jax
import jax.numpy as jnp

from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.models.elf import ElfShape
from elfcli.parallel.backend import cudnn_attention


def compute_dtype(config: Config, platform: str | None = None) -> Any:
    """Return the dtype of activations on `platform` (None: JAX's default); `auto` is float32 on CPU, else bfloat16."""
    name = config.training.compute_dtype
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jnp.dtype(name)


def attention_kernel(config: Config, platform: str, dtype: Any) -> str:
    """Return plain, tpu or cudnn; `auto`: the platform's fused kernel if it has one for this dtype.

    Raises InputError if the requested kernel does not run on the platform.
    """
    requested, fused = config.training.attention, {"tpu": "tpu", "gpu": "cudnn"}.get(platform, "plain")
    if requested not in ("auto", "plain", fused):
        raise InputError(f"attention={requested} does not run on {platform}; use attention=auto or plain")
    if requested == "plain" or fused == "plain":
        return "plain"
    if fused == "cudnn" and not (dtype == jnp.bfloat16 and cudnn_attention(jax.local_devices()[0])):
        return "plain"
    return fused


def arithmetic(config: Config, platform: str | None = None) -> tuple[Any, str]:
    """Return (dtype of activations, attention kernel) on `platform`; None: JAX's default."""
    platform = platform or jax.default_backend()
    dtype = compute_dtype(config, platform)
    return dtype, attention_kernel(config, platform, dtype)


def elf_shape(config: Config, latent_dim: int, vocab: int, platform: str | None = None) -> ElfShape:
    """Return the network that the settings describe, on `platform`; None: JAX's default."""
    platform = platform or jax.default_backend()
    dtype, attention = arithmetic(config, platform)
    remat = config.training.remat
    if remat == "auto":  # memory is rarely the limit on a CPU
        remat = "none" if platform == "cpu" else "dots"
    return ElfShape(
        latent_dim,
        vocab,
        **config.network.model_dump(exclude={"model", "attn_dropout"}),
        self_cond=config.objective.self_cond_prob > 0,
        dtype=dtype,
        remat=remat,
        attention=attention,
        gradient_dtype=jnp.dtype(config.training.gradient_dtype),
    )
