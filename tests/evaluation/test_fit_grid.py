"""A fitted grid: equal parts of movement; the command, sampling with it, and its way into an export."""

import shutil
from pathlib import Path

import numpy as np
from tiny_run import tiny_run

from elfcli.config.resolve import resolve
from elfcli.evaluation.fit_grid import QUANTILES, quantiles


def test_steps_are_spent_in_proportion_to_the_movement():
    np.testing.assert_allclose(quantiles(np.full(64, 0.3)), np.linspace(0, 1, QUANTILES), atol=1e-5)
    moved = np.full(64, 0.01)
    moved[33:] = 0.03  # the second half of time moves three times as much: a quarter of the steps lies in the first
    moved[:2] = 9.0  # where the estimate settles on itself: ignored
    assert abs(np.interp(0.5, quantiles(moved), np.linspace(0, 1, QUANTILES)) - 0.25) < 0.01


def test_the_command_sampling_and_the_export(elf, tmp_path):
    run = Path(shutil.copytree(tiny_run(), tmp_path / "run"))
    wanted = ("sample", "--checkpoint", run, "--data", run / "data", "--time-schedule", "fitted", "--steps", "3")
    shutil.copytree(tiny_run().parent / "data", run / "data")
    code, _, err = elf(*wanted)
    assert code == 2 and "no grid was fitted to this model yet: `elf fit-grid CHECKPOINT`" in err
    code, out, err = elf("fit-grid", run, "--num-samples", "4")
    assert code == 0 and "half before" in err and f"elf sample --checkpoint {run} --time-schedule fitted" in out
    times = resolve(files=[run / "grid.toml"], environ={}).config.evaluation.time_grid
    assert len(times) == QUANTILES and times[0] == 0 and times[-1] == 1 and all(np.diff(times) > 0)
    code, _, err = elf(*wanted, "--sampler", "multistep", "-n", "2")
    assert code == 0 and "multistep3-cfg1-w1-fitted" in err, err
    code, _, err = elf("fit-grid", run)
    assert code == 2 and "grid.toml" in err and "--overwrite" in err
    assert elf("export", run, tmp_path / "out")[0] == 0
    exported = resolve(files=[tmp_path / "out" / "config.toml"], environ={}).config
    assert exported.evaluation.time_grid == times
