"""A failed evaluation during training does not stop the run."""

import shutil

import pytest
from tiny_run import tiny_run

from elfcli.config.resolve import changed, resolve_run
from elfcli.evaluation import online
from elfcli.runs.folder import read_metrics
from elfcli.training.start import start_run


@pytest.mark.parametrize("error", [ValueError("RESOURCE_EXHAUSTED: out of memory"), OSError(28, "disk full")])
def test_any_error_is_reported_and_counted_and_training_continues(tmp_path, monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(online, "evaluate", fail)
    resolved = changed(resolve_run(tiny_run() / "config.toml"), "evaluation", None, online_eval=True)
    data = tiny_run().parent / "data"
    shutil.copytree(data, tmp_path / "data" / "validation")
    resolved = changed(resolved, "data", None, eval_data_path=str(tmp_path / "data" / "validation"))
    folder = start_run(resolved, tmp_path / "run")
    assert "warning: the evaluation at step 3" in capsys.readouterr().err
    assert (folder / "checkpoints" / "3").is_dir()
    assert {"step": 3, "eval/failed": 1.0} in read_metrics(folder)
