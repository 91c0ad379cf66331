"""Settings and abilities of the JAX backend: the cache of compiled programs, cuDNN's attention."""

import os
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp

from elfcli.errors import first_line
from elfcli.ui.progress import say


def prepare() -> None:
    """Set JAX's cache of compiled programs, so that a resume need not compile. JAX_COMPILATION_CACHE_DIR moves it."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elf" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home costs compile time, nothing else
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@cache
def cudnn_attention(device: jax.Device) -> bool:
    """Return whether cuDNN's fused attention works on this GPU (it needs compute capability 8.0), and report if not."""
    try:
        if "cuda" not in device.client.platform_version.lower() or float(device.compute_capability) < 8.0:
            return False
        heads = jax.ShapeDtypeStruct((1, 128, 1, 64), jnp.bfloat16)
        attention = partial(jax.nn.dot_product_attention, implementation="cudnn")
        jax.jit(jax.grad(lambda q: attention(q, q, q).astype(jnp.float32).sum())).lower(heads).compile()
    except Exception as error:  # of the compiler, the driver or cuDNN
        say(f"cuDNN's attention does not work on this machine ({first_line(error)[:200]}): using plain attention")
        return False
    return True
