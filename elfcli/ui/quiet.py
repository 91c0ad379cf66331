"""Prepares a process before libraries are imported: silences them on the terminal, sets memory and device options."""

import ctypes
import os
from importlib.util import find_spec

_ENVIRONMENT = {
    **{"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3", "GRPC_VERBOSITY": "ERROR", "PYTHONWARNINGS": "ignore"},
    **{f"{name}_VERBOSITY": "error" for name in ("TRANSFORMERS", "DATASETS", "HF_HUB")},
    **{f"{name}_DISABLE_PROGRESS_BARS": "1" for name in ("HF_DATASETS", "HF_HUB")},
    **{"TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"},
}

_LOGGERS = (
    *("jax", "jax._src.xla_bridge", "flax", "grain"),
    *("transformers", "datasets", "evaluate", "huggingface_hub", "httpx", "urllib3", "filelock", "rouge_score"),
)


def quiet() -> None:
    """Set log levels, and environment variables that the user has not set (child processes inherit them)."""
    import logging
    import sys
    import warnings

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    # After a failed read, callbacks in Orbax's threads raise because their event loop is closed; we report the failure.
    sys.unraisablehook = lambda unraisable: None
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("asyncio", "absl", "orbax"):  # they print tracebacks of errors that we report in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)


M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD = -8, -4, -1  # mallopt(3)
ACCELERATOR_PACKAGES = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")


def keep_memory() -> None:
    """Make glibc keep freed memory, unless an accelerator package is installed: XLA's CPU backend maps the step's
    memory anew at every step, a fifth of the demo's step (0.171 s to 0.129 s, medians of 59, two cores). All threads
    use one arena, because others map memory. Existing arenas stay, so this must run first."""
    if any(find_spec(package) for package in ACCELERATOR_PACKAGES):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1)):
        mallopt(option, value)


TRAINS = ("demo", "train", "resume", "distill")
WITHOUT_DEVICES = ("tasks", "tokenize", "eval-bleu", "eval-rouge", "runs", "report", "export", "push-to-hub")
MEMORY_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # its present and its former name


def choose_devices(command: str) -> None:
    """Set, unless the user has, what JAX does with accelerators. A command that does not compute leaves them to others:
    a TPU admits one process, and on a GPU JAX takes most of the memory. `config` only counts devices. Training may use
    90% of a GPU's memory, not JAX's 75%; the rest is for CUDA's libraries."""
    if command in WITHOUT_DEVICES:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    elif command == "config":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    elif command in TRAINS and not any(name in os.environ for name in MEMORY_FRACTIONS):
        os.environ[MEMORY_FRACTIONS[0]] = "0.9"
