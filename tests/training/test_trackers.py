"""Trackers really run, offline, where they are installed; the figures have the names of metrics.jsonl."""

import json

import pytest

from elfcli.config.resolve import resolve
from elfcli.errors import InputError
from elfcli.training.trackers import open_tracker

FIGURES = {"loss": 1.5, "denoise_loss": 1.25, "tokens_per_second": 100.0, "eval/ode64/bleu": 26.0}


def config(tracker: str):
    return resolve(sets=[f"tracker={tracker}", "wandb_project=trial"], environ={}).config


def test_tensorboard_writes_the_figures(tmp_path):
    pytest.importorskip("tensorboardX")
    track = open_tracker(config("tensorboard"), tmp_path)
    track(7, FIGURES)
    track.__closure__[0].cell_contents.close()
    (file,) = (tmp_path / "tensorboard").glob("events*")
    content = file.read_bytes()
    assert all(name.encode() in content for name in FIGURES)


def test_wandb_writes_the_figures_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    track = open_tracker(config("wandb"), tmp_path)
    track(7, FIGURES)
    wandb.finish()
    (file,) = tmp_path.glob("wandb/offline-run*/*.wandb")
    content = file.read_bytes()
    assert all(name.encode() in content for name in FIGURES)


def test_trackio_keeps_the_figures_here(tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    track = open_tracker(config("trackio"), tmp_path)
    track(7, FIGURES)
    trackio.finish()
    found = b"".join(path.read_bytes() for path in (tmp_path / "trackio").rglob("*.db*"))
    assert all(json.dumps(name)[1:-1].encode() in found for name in FIGURES)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_missing_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, {"tensorboard": "tensorboardX"}.get(name, name), None)
    with pytest.raises(InputError, match=rf"tracker {name} is not installed; `pip install 'elfcli\[{name}\]'"):
        open_tracker(config(name), tmp_path)
