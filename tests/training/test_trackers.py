"""Trackers really run, offline, where they are installed; the figures have the names of metrics.jsonl."""

import json
import sqlite3

import pytest
from tiny_run import SETTINGS, tiny_run

from elfcli.config.resolve import resolve
from elfcli.errors import InputError
from elfcli.training.start import start_run
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


def test_trackio_holds_what_metrics_jsonl_holds(tmp_path, monkeypatch):
    """In its database here, under the same names; a resumed run goes on in the same record."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which trackio reads when it is imported
    trackio = pytest.importorskip("trackio")
    sets, data = [*SETTINGS, "tracker=trackio", "wandb_project=trial"], {"data_path": str(tiny_run().parent / "data")}
    run = start_run(resolve(task="toy-de-en", sets=sets, flags=data, environ={}), tmp_path / "run")
    trackio.finish()
    open_tracker(config("trackio"), run)(4, FIGURES)
    trackio.finish()
    with sqlite3.connect(tmp_path / "trackio" / "trial.db") as database:
        rows = database.execute("select run_id, step, metrics from metrics").fetchall()
    assert len({run_id for run_id, _, _ in rows}) == 1
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert by_step((step, json.loads(metrics)) for _, step, metrics in rows) == by_step(
        [*((line.pop("step"), line) for line in lines), (4, FIGURES)]
    )
    assert len(lines) >= 3, "the comparison can fail"


def by_step(rows) -> dict[int, dict]:
    """All figures of a step together, but for those without a value."""
    found: dict[int, dict] = {}
    for step, figures in rows:
        found.setdefault(step, {}).update({name: value for name, value in figures.items() if value is not None})
    return found


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_missing_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, {"tensorboard": "tensorboardX"}.get(name, name), None)
    with pytest.raises(InputError, match=rf"tracker {name} is not installed; `pip install 'elfcli\[{name}\]'"):
        open_tracker(config(name), tmp_path)
