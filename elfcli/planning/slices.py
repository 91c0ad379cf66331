"""Names of machines: TPU slices as Google Cloud names them, and GPUs. Does not import JAX, because the environment of
its compilers must be set first."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from elfcli.errors import InputError, did_you_mean
from elfcli.planning.gpus import card_names, find_gpus
from elfcli.ui.progress import say

GIB = 2**30
LOCAL = "local"


@dataclass(frozen=True)
class Kind:
    """A TPU generation. cores: the number that slice names count per chip."""

    library_name: str  # in libtpu's names of topologies
    memory: int  # bytes per chip
    links: float  # bytes per second of a chip to the others, all links together
    cores: int
    slices: Mapping[int, tuple[int, ...]]  # chips to layout


# Slices, memory and bandwidth of the chips' links: Google Cloud's TPU documentation, https://cloud.google.com/tpu/docs,
# pages "TPU v5p", "TPU v5e" and "TPU v6e" (which give the links in Gbit/s per chip: 4800, 1600 and 3584).
V5P = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8),
       512: (8, 8, 8)}  # fmt: skip
FLAT = {4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
TPU_KINDS = {
    "v5p": Kind("v5", 95 * GIB, 600e9, 2, V5P),
    "v5e": Kind("v5e", 16 * GIB, 200e9, 1, FLAT),
    "v6e": Kind("v6e", 32 * GIB, 448e9, 1, FLAT),
}


def names() -> list[str]:
    """Return the names of all slices."""
    return [f"{kind}-{chips * TPU_KINDS[kind].cores}" for kind in TPU_KINDS for chips in TPU_KINDS[kind].slices]


def check_name(name: str) -> None:
    """Raise InputError for an unknown machine."""
    if name == LOCAL or name in names() or find_gpus(name):
        return
    known = [LOCAL, *names(), *card_names()]
    near = did_you_mean(name, [*known, *(f"{card}x8" for card in card_names())])
    raise InputError(f"--topology {name}: unknown{near}; there are {', '.join(known)}; "
                     "several GPUs: h100x8, or h100x2x8 for two hosts of 8")  # fmt: skip


# Untuned, the sizes of XLA's own kernels for products fail to compile: cuBLAS computes them.
UNTUNED = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"


def prepare_compiler(name: str) -> None:
    """Let XLA compile for a TPU or GPU that is not there. To be called before JAX is imported. Raise InputError if a
    plugin of JAX is missing."""
    if name == LOCAL:
        return
    if find_gpus(name):
        if not any(find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
            raise InputError(f"--topology {name}: compiling for GPUs needs JAX's plugin, not a GPU: "
                             "pip install 'elfcli[cuda13]'")  # fmt: skip
        flags = f"{os.environ.get('XLA_FLAGS', '')} {UNTUNED}".strip()
        os.environ |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        return
    if find_spec("libtpu") is None:
        raise InputError(f"--topology {name}: compiling for TPUs needs libtpu: pip install 'elfcli[tpu]'")
    if wrong := another_libtpu():
        say(f"warning: {wrong}")
    kind = name.replace("v5e", "v5litepod")
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": kind, "TPU_WORKER_HOSTNAMES": "localhost",
                   "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # fmt: skip


def another_libtpu() -> str | None:
    """Return a warning if libtpu is not the version that JAX expects: one may not read the other's programs."""
    with suppress(PackageNotFoundError):
        installed, lines = version("libtpu"), requires("jax") or ()
        expected = next((match[1] for line in lines if (match := re.match(r"libtpu==([\d.]+)", line))), "")
        if not installed.startswith(expected):
            return (f"libtpu {installed} is installed, JAX {version('jax')} expects {expected}*: compiling may fail "
                    "(pip install 'elfcli[tpu]')")  # fmt: skip
    return None
