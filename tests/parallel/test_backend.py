"""Which GPUs get cuDNN's fused attention and bfloat16, and what is said about a GPU that cannot be used."""

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from elfcli.cli.app import COMMANDS
from elfcli.config.schema import Config
from elfcli.models import build
from elfcli.parallel import backend
from elfcli.parallel.backend import cudnn_attention
from elfcli.ui.quiet import MEMORY_FRACTIONS, TRAINS, WITHOUT_DEVICES, choose_devices


def gpu(version: str, capability: str):
    return SimpleNamespace(client=SimpleNamespace(platform_version=version), compute_capability=capability)


class Device(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("version", "capability"),
    [("PJRT C API\nrocm 60300", "gfx90a"), ("PJRT C API\ncuda 12090", "7.5"), ("PJRT C API\ncuda 12090", "7.0")],
)
def test_older_gpus_and_other_makers_get_plain_attention(version, capability, capsys):
    device = Device(**vars(gpu(version, capability)))
    assert not cudnn_attention(device)
    assert capsys.readouterr().err == "", "nothing is wrong with them"


def test_a_kernel_that_cannot_be_built_is_reported_in_one_line(capsys):
    """This machine has no cuDNN, so building its kernel fails."""
    device = Device(**vars(gpu("PJRT C API\ncuda 12090", "9.0")))
    assert not cudnn_attention(device)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cuDNN" in err


@pytest.mark.parametrize(("capability", "dtype"), [("7.5", jnp.float32), ("8.0", jnp.bfloat16), ("9.0", jnp.bfloat16)])
def test_gpus_that_do_not_multiply_bfloat16_get_float32(monkeypatch, capability, dtype):
    device = Device(**vars(gpu("PJRT C API\ncuda 12090", capability)))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(build, "cudnn_attention", lambda device: True)
    assert build.arithmetic(Config())[0] == dtype
    assert build.arithmetic(Config(), "tpu")[0] == jnp.bfloat16, "a plan for another machine"


def test_devices_by_command(monkeypatch):
    """What does not compute starts no accelerator; training gets most of a GPU's memory; what the user sets stays."""
    for name in ("JAX_PLATFORMS", *MEMORY_FRACTIONS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    choose_devices("sample")
    assert not {"JAX_PLATFORMS", *MEMORY_FRACTIONS} & os.environ.keys()
    choose_devices("tokenize")
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    choose_devices("train")
    assert os.environ[MEMORY_FRACTIONS[0]] == "0.9"
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    choose_devices("runs")
    assert os.environ["JAX_PLATFORMS"] == "tpu"
    monkeypatch.delenv(MEMORY_FRACTIONS[0])
    monkeypatch.setenv(MEMORY_FRACTIONS[1], "0.5")
    choose_devices("train")  # JAX refuses both names together
    assert MEMORY_FRACTIONS[0] not in os.environ
    commands = {name for panel in COMMANDS.values() for name in panel}
    assert commands >= {*TRAINS, *WITHOUT_DEVICES}


def test_a_gpu_without_its_plugin_is_reported_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    monkeypatch.delenv("JAX_PLATFORMS")
    backend.prepare()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(backend, "NVIDIA_DEVICE", tmp_path)
    backend.prepare()
    err = capsys.readouterr().err
    assert "elfcli[cuda13]" in err and err.count("\n") == 1
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    backend.prepare()
    assert capsys.readouterr().err == "", "the user chose the CPU"


def test_a_busy_accelerator_is_one_line(elf, monkeypatch, tmp_path):
    def busy(*_, **__):
        raise RuntimeError("Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process 12")

    monkeypatch.setattr("elfcli.api.load", busy)
    code, _, err = elf("sample", tmp_path, "-n", 1)
    assert code == 1 and "process 12" in err and "JAX_PLATFORMS=cpu" in err and "Traceback" not in err
    assert [line.startswith("error: ") for line in err.splitlines()] == [True]
