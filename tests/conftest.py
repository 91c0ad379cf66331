"""Shared by all tests: compiled programs are kept between runs, and `../shared` is found or its tests skipped."""

import atexit
import functools
import gc
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest
import typer.main
from helpers import COLLECT_AFTER, SESSION, SHARED

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elf" / "jax-tests"

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))  # subprocesses inherit it
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Of tiny programs compiling is what takes time, of the trainings of `-m slow` it is not. Workers inherit what is
# set here and do not see the arguments.
if "slow" not in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")  # a third less time
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[SESSION] = tempfile.mkdtemp(prefix="elf-tests-")  # the workers inherit it
    atexit.register(shutil.rmtree, os.environ[SESSION], ignore_errors=True)

gc.set_threshold(COLLECT_AFTER)
typer.main.get_command = functools.cache(typer.main.get_command)  # once a process, as for a user, not once a call


LONG = ["join", "start", "plan", "goldens", "objective", "push", "offline", "demo", "mesh", "hostile", "old_files",
        "checkpoint", "api", "choose"]  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first, so that both workers end at the same time."""
    items.sort(key=lambda item: Path(item.path).stem.removeprefix("test_") not in LONG)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of goldens and corpora, which are no part of the product."""
    if not SHARED.is_dir():
        pytest.skip("the folder `shared` with goldens and corpora is not beside the checkout")
    return SHARED


@pytest.fixture
def elf(capsys, monkeypatch):
    """Runs `elf` within this process: (exit code, stdout, stderr)."""
    from elfcli.__main__ import main

    for name in [name for name in os.environ if name.startswith("ELF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("elfcli.ui.quiet.quiet", lambda: None)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, with the client of this process pointed at it, an empty cache and a token that holds."""
    from hub_server import TOKEN, Hub, point_at
    from huggingface_hub import constants

    with Hub() as served:
        point_at(monkeypatch, served.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield served


@pytest.fixture
def evaluate(tmp_path_factory, tmp_path, monkeypatch):
    """The package, with its caches in folders of the tests and every connection refused. What was loaded stays in
    sys.modules, so the folder of modules is one for all."""
    import evaluate
    from evaluate import config, loading, module
    from evaluate.utils import file_utils

    def refuse(*_, **__):
        raise AssertionError("a metric on disk needs no network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    for place in (config, loading.config, file_utils.config):
        monkeypatch.setattr(place, "HF_MODULES_CACHE", str(tmp_path_factory.getbasetemp() / "modules"), raising=False)
    monkeypatch.setattr(module.config, "HF_EVALUATE_CACHE", str(tmp_path / "cache"), raising=False)
    return evaluate
