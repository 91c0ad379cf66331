"""Settings and abilities of the JAX backend: the cache of compiled programs, cuDNN's attention."""

import os
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from elfcli.errors import first_line
from elfcli.ui.progress import say
from elfcli.ui.quiet import ACCELERATOR_PACKAGES

NVIDIA_DEVICE = Path("/dev/nvidia0")


def prepare() -> None:
    """Report a GPU that JAX cannot use. Set JAX's cache of compiled programs, so that a resume need not compile;
    JAX_COMPILATION_CACHE_DIR moves it."""
    plugin = any(find_spec(package) for package in ACCELERATOR_PACKAGES)
    if NVIDIA_DEVICE.exists() and not plugin and "JAX_PLATFORMS" not in os.environ:
        say("JAX computes on the CPU: `pip install 'elfcli[cuda13]'` to use this machine's NVIDIA GPU")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elf" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home costs compile time, nothing else
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def multiplies_bfloat16(device: Any) -> bool:
    """Return whether a device multiplies bfloat16 matrices. NVIDIA GPUs do from compute capability 8.0 on."""
    capability = getattr(device, "compute_capability", None)
    return capability is None or "cuda" not in device.client.platform_version.lower() or float(capability) >= 8.0


@cache
def cudnn_attention(device: jax.Device) -> bool:
    """Return whether cuDNN's fused attention works on this GPU (it needs compute capability 8.0), and report if not."""
    try:
        if "cuda" not in device.client.platform_version.lower() or not multiplies_bfloat16(device):
            return False
        heads = jax.ShapeDtypeStruct((1, 128, 1, 64), jnp.bfloat16)
        attention = partial(jax.nn.dot_product_attention, implementation="cudnn")
        jax.jit(jax.grad(lambda q: attention(q, q, q).astype(jnp.float32).sum())).lower(heads).compile()
        bias = jax.ShapeDtypeStruct((1, 1, 128, 128), jnp.bfloat16)
        jax.jit(lambda q, bias: attention(q, q, q, bias)).lower(heads, bias).compile()
    except Exception as error:  # of the compiler, the driver or cuDNN
        say(f"cuDNN's attention does not work on this machine ({first_line(error)[:200]}): using plain attention")
        return False
    return True
