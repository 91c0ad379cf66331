"""Settings and abilities of the JAX backend: the cache of compiled programs, cuDNN's attention."""

import os
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp

from elfcli.errors import first_line
from elfcli.ui.progress import say


def prepare() -> None:
    """Sets JAX's cache of compiled programs, so that a resume need not compile; JAX_COMPILATION_CACHE_DIR moves it."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elf" / "jax"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home costs compile time, nothing else
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@cache
def cudnn_attention(device) -> bool:
    """Whether cuDNN's fused attention works on this GPU: it needs CUDA and, by cuDNN's documentation, compute
    capability 8.0. A kernel that cannot be compiled is reported in one line."""
    try:
        if "cuda" not in device.client.platform_version.lower() or float(device.compute_capability) < 8.0:
            return False
        heads = jax.ShapeDtypeStruct((1, 128, 1, 64), jnp.bfloat16)
        attention = partial(jax.nn.dot_product_attention, implementation="cudnn")
        jax.jit(jax.grad(lambda q: attention(q, q, q).astype(jnp.float32).sum())).lower(heads).compile()
    except Exception as error:  # of the compiler, the driver or cuDNN
        say(f"cuDNN's attention cannot be used here ({first_line(error)[:200]}): plain attention instead")
        return False
    return True
