"""What every command that computes sets in JAX before the first computation."""

import os
from pathlib import Path

import jax


def prepare() -> None:
    """Keeps compiled programs in a cache, so that a resume starts at once; JAX_COMPILATION_CACHE_DIR moves it."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elf" / "jax"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home costs compile time, nothing else
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
