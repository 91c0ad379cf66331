"""Keeps third-party libraries from talking on the terminal. Imports none of them."""

import os

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "GLOG_minloglevel": "3",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}

_LOGGERS = (
    *("jax", "jax._src.xla_bridge", "flax", "grain"),
    *("transformers", "datasets", "evaluate", "huggingface_hub", "httpx", "urllib3", "filelock", "rouge_score"),
)


def quiet() -> None:
    """Sets what is not already set by the user; child processes inherit it."""
    import logging
    import sys
    import warnings

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    # After a failed read, callbacks of Orbax's threads find their event loop closed, long after we said what failed.
    sys.unraisablehook = lambda unraisable: None
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("asyncio", "absl", "orbax"):  # they print tracebacks of failures that we tell in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
