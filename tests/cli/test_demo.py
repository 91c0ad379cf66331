"""`elf demo`: its stages and its result in small, and the promised score in the slow form."""

import json

import pytest

from elfcli.__main__ import main
from elfcli.cli.demo import SENTENCES
from elfcli.corpus import toy
from elfcli.planning.plan import plan_training
from elfcli.sampling.model import load_model


def demo(folder, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["demo", "--output", str(folder), *arguments])
    return end.value.code


def test_stages_and_result(tmp_path, monkeypatch, capsys):
    """Two steps of a tiny network, set through the environment like any setting, and a tenth of the sentences."""
    for name, value in {
        "NUM_WORKERS": 0,
        "STEPS": 2,
        "WARMUP_STEPS": 0,
        "DEPTH": 1,
        "HIDDEN_SIZE": 16,
        "NUM_HEADS": 1,
    }.items():
        monkeypatch.setenv(f"ELF_{name}", str(value))
    monkeypatch.setitem(toy.generate.__kwdefaults__, "num_train", 2000)
    assert SENTENCES >= 200, "a user's, of which this test takes a tenth"
    monkeypatch.setattr("elfcli.cli.demo.SENTENCES", 25)
    monkeypatch.setattr("elfcli.cli.demo.ROUNDS", "8")
    monkeypatch.setattr("elfcli.cli.demo.ROUND_STEPS", 1)
    monkeypatch.setattr("elfcli.cli.demo.GAP_SETTINGS", ["steps=2", "batch_size=8", "model=ELF-XS"])
    assert demo(tmp_path / "demo", "--seed", "3", "--distill", "--gaps") == 0
    told = capsys.readouterr()
    assert [f"[{number}/9]" in told.err for number in range(1, 10)] == [True] * 9
    assert "step 1 of 2" in told.err, "the second half is resumed from a checkpoint"
    result = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert result.keys() == {"bleu", "exact_match", "sentences", "seconds", "seed"}
    assert result["sentences"] == 25 and result["seed"] == 3
    samples = [json.loads(line) for line in (tmp_path / "demo" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == result["sentences"]
    assert all({"id", "generated", "input", "reference"} <= sample.keys() for sample in samples)

    rows = json.loads((tmp_path / "demo" / "students" / "demo.json").read_text())
    assert [(row["model"], row["steps"]) for row in rows] == [("teacher", 64), ("teacher", 8), ("student", 8)]
    filled = json.loads((tmp_path / "demo" / "gaps.json").read_text())
    assert filled["of_the_grammar"].keys() == {"prefix", "span", "several"} and filled["sentences"] == 25
    before = (tmp_path / "demo" / "demo.json").read_bytes()
    assert demo(tmp_path / "demo") == 2, "a folder that is there is refused"
    assert (tmp_path / "demo" / "demo.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_promised_score(tmp_path, seed):
    """`pytest -m slow tests/cli/test_demo.py`: BLEU 98 within five minutes on two cores.

    The minutes depend on the machine, so the work is bounded as well: 13.5 TFLOP, 4.5 minutes at 25 GFLOP/s per core.
    """
    assert demo(tmp_path / "demo", "--seed", str(seed)) == 0
    result = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert result["bleu"] >= 98
    config = load_model(str(tmp_path / "demo" / "run")).config
    planned = plan_training(config, "local")
    assert planned.flops_per_chip * config.training.steps <= 300 * 0.9 * 2 * 25e9
    assert result["seconds"] <= 300
