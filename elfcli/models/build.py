"""From settings to the network's shape and arithmetic on a platform."""

import jax
import jax.numpy as jnp

from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.models.elf import ElfShape
from elfcli.parallel.backend import cudnn_attention


def compute_dtype(config: Config, platform: str | None = None):
    """The dtype of activations; `auto`: bfloat16 on accelerators, float32 on CPU. platform: None: JAX's default."""
    name = config.training.compute_dtype
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jnp.dtype(name)


def attention_kernel(config: Config, platform: str, dtype) -> str:
    """plain, tpu or cudnn; `auto`: the platform's fused kernel, where it has one for this dtype."""
    asked, here = config.training.attention, {"tpu": "tpu", "gpu": "cudnn"}.get(platform, "plain")
    if asked not in ("auto", "plain", here):
        raise InputError(f"attention={asked}: that kernel does not run on {platform}; give attention=auto or plain")
    if "plain" in (asked, here):
        return "plain"
    if here == "cudnn" and not (dtype == jnp.bfloat16 and cudnn_attention(jax.local_devices()[0])):
        return "plain"
    return here


def arithmetic(config: Config, platform: str | None = None):
    """(dtype of activations, attention kernel) of the settings on `platform`; None: JAX's default."""
    platform = platform or jax.default_backend()
    dtype = compute_dtype(config, platform)
    return dtype, attention_kernel(config, platform, dtype)


def elf_shape(config: Config, latent_dim: int, vocab: int, platform: str | None = None) -> ElfShape:
    """The network that the settings describe, on `platform`; None: JAX's default."""
    platform = platform or jax.default_backend()
    dtype, attention = arithmetic(config, platform)
    remat = config.training.remat
    if remat == "auto":  # on a CPU time is scarcer than memory
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
