"""A run on several devices is the run on one, whatever the mesh (8 virtual CPU devices in a process of their own)."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from elfcli.config.resolve import resolve
from elfcli.config.schema import ObjectiveSettings
from elfcli.parallel.mesh import needed_fsdp, state_shardings
from elfcli.training.step import device_group, num_groups

ROUNDING = 2e-4  # of three Muon steps, which amplify the last bits of tiny gradients


def meshes(*arguments: str) -> list[dict]:
    script = Path(__file__).parents[1] / "mesh_run.py"
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_eight_devices_with_sharded_weights_equal_one():
    (found,) = meshes("2x4", "--", "optimizer=adamw", "depth=1")
    assert found["error"] < ROUNDING
    assert found["cut"] > 10, "the weights are sharded"


@pytest.mark.slow
def test_every_mesh_of_eight_devices_equals_one():
    found = meshes("8x1", "4x2", "2x4", "1x8")
    assert [row["mesh"] for row in found if row["error"] >= ROUNDING] == []


@pytest.mark.parametrize(
    ("platform", "counts", "without"),
    [
        ("tpu", (2,), {"judge"}),
        pytest.param("tpu", (8,), {"judge"}, marks=pytest.mark.slow),
        pytest.param("cuda", (2, 8), {"judge"}, marks=pytest.mark.slow),
    ],
)
def test_every_program_lowers_for_several_accelerators(platform, counts, without):
    """Outside of a mesh, JAX refuses: Mosaic kernels cannot be automatically partitioned."""
    if platform == "cuda" and not find_spec("jax_cuda13_plugin"):
        pytest.skip("needs JAX's CUDA plugin: pip install 'elfcli[cuda13]'")
    script = Path(__file__).parents[1] / "lower_run.py"
    command = [sys.executable, str(script), platform, *map(str, counts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    none = [line.partition(", ")[2].removesuffix(": 0 kernels") for line in lines if line.endswith(": 0 kernels")]
    assert len(lines) == 11 * len(counts) and set(none) == without, done.stdout


@pytest.mark.parametrize(
    ("batch", "settings", "expected"),
    [(512, {}, 32), (64, {}, 4), (24, {}, 2), (4, {}, 1), (17, {}, 1), (64, {"group_size": 8}, 8)],
)  # fmt: skip
def test_groups_depend_on_the_batch_alone(batch, settings, expected):
    assert num_groups(batch, ObjectiveSettings(**settings)) == expected


@pytest.mark.parametrize(
    ("batch", "devices", "sets", "expected"),
    [(512, 32, [], None), (512, 64, [], 8), (512, 512, [], None), (64, 8, [], 8), (64, 8, ["group_size=16"], None)],
)
def test_the_default_group_follows_a_small_share(batch, devices, sets, expected):
    """A single example has no group of its own: a group has two branches."""
    config = resolve(sets=[f"batch_size={batch}", *sets], environ={}).config
    assert device_group(config, devices) == expected


def test_state_is_sharded_only_if_it_would_not_fit():
    assert needed_fsdp(100_000_000, 32, 95 * 2**30) == 1
    assert needed_fsdp(652_000_000, 16, 16 * 2**30) == 2
    assert needed_fsdp(10**12, 16, 16 * 2**30) == 16
    assert needed_fsdp(10**12, 16, None) == 1


def test_layers_are_never_sharded_along_their_axis(monkeypatch):
    monkeypatch.setattr("elfcli.parallel.mesh.NamedSharding", lambda mesh, spec: tuple(spec))
    mesh = SimpleNamespace(shape={"data": 1, "fsdp": 4})
    tree = {"blocks": {"w": jax.ShapeDtypeStruct((8, 4, 6), "float32")}, "b": jax.ShapeDtypeStruct((3,), "float32")}
    assert state_shardings(tree, mesh) == {"blocks": {"w": (None, "fsdp")}, "b": ()}
