"""Every golden, by the runner that users start: `python tests/goldens.py DIR`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from goldens import Goldens, load
from helpers import GOLDENS, SHARED

CASES = "t5_encoder t5_relu t5_gated gpt2 elf_network objective_uncond sample_uncond_ode postprocess " \
        "checkpoint_msgpack checkpoint_orbax encoder.pkl"  # fmt: skip


@pytest.mark.parametrize(
    "folder", [GOLDENS, pytest.param(SHARED / "goldens", marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_goldens_hold(folder):
    """Compiled as for users; the other tests skip most of the compiler's work (conftest.py)."""
    if not folder.is_dir():
        pytest.skip("the larger set of goldens is not beside the checkout")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    runner = Path(__file__).with_name("goldens.py")
    done = subprocess.run([sys.executable, runner, folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.endswith(" hold, 0 fail\n"), done.stdout + done.stderr
    missing = [case for case in CASES.split() if f"\n{case} " not in done.stdout]
    assert not missing


def test_a_wrong_golden_is_noticed():
    """The runner compares with the goldens, not with itself."""
    goldens = Goldens(GOLDENS)
    goldens.config["latent_mean"] += 1e-3
    rows = list(goldens.objective_case("objective_uncond", load(GOLDENS / "objective_uncond.npz")))
    assert any(not row.holds for row in rows)
    stored = load(GOLDENS / "checkpoint_expected.npz")
    assert not [row for row in goldens.checkpoints() if not row.holds]
    goldens.stored = lambda: stored | {"sha256_params": "0" * 64}
    assert [row.what[:6] for row in goldens.checkpoints() if not row.holds] == ["params"] * 2
