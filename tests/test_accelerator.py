"""benchmarks/accelerator.py on a CPU, with tiny sizes."""

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"


@pytest.fixture(scope="module")
def accelerator():
    spec = importlib.util.spec_from_file_location("accelerator", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parts_print_and_write_their_results(accelerator, tmp_path, capsys):
    lines = tmp_path / "results.jsonl"
    for part in ("versions", "attention", "sampling"):
        accelerator.run_part(part, accelerator.TINY, lines)
    accelerator.write_results(lines, tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == len(capsys.readouterr().out.splitlines()) == 7
    assert {row["part"] for row in rows} == {"versions", "attention", "sampling"}
    assert rows[-1]["what"] == "sampled tokens/s" and rows[-1]["value"] > 0
    assert (tmp_path / "results.md").read_text().count("\n|") == 8


def test_training_is_measured_beside_its_estimate(accelerator):
    found = dict(accelerator.training(accelerator.TINY))
    assert found["batch, kernel"] == [4, "auto"] and found["tokens/s"] > 0
    assert found["seconds a step (median of 2), estimate"][1] > 0
