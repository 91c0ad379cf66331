"""SIGKILL at the worst moment, just before output gets its name: it is whole or not there, and the next try is good.

Training is killed in test_training.py; benchmarks/kill.py kills at random moments, many times.
"""

import json
import os
from pathlib import Path

import pytest
from many_processes import killed
from tiny_run import tiny_run


def content(output: Path) -> dict[str, bytes | dict]:
    """Files below, or the file; the lines of a sweep without what the clock decides."""
    paths = output.rglob("*") if output.is_dir() else [output]
    found = {path.name: path.read_bytes() for path in paths if path.is_file() and path.name[0] != "."}
    lines = map(json.loads, found.pop("results.jsonl", b"").splitlines())
    return found | {f"result {row['name']}": row | {"seconds": 0} for row in lines}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ELF_")]:
        monkeypatch.delenv(name)
    return tiny_run()


def test_tokenize(elf, run):
    command = ["tokenize", "-i", run.parent / "pairs.jsonl", "--source-key", "input", "--target-key", "output"]
    command += ["--train-tokenizer", 26, "-o"]
    killed(0, *command, Path("output").absolute())
    assert not Path("output").exists()
    assert elf(*command, "output")[0] == 0 and elf(*command, "whole")[0] == 0
    assert content(Path("output")) == content(Path("whole")) and len(content(Path("output"))) > 5


def test_sample(elf, run):
    command = ["sample", "--checkpoint", run, "--data", run.parent / "data", "--num-samples", 6, "--steps", 5, "-o"]
    killed(0, *command, "output.jsonl")
    assert not Path("output.jsonl").exists()
    assert elf(*command, "output.jsonl")[0] == 0 and elf(*command, "whole.jsonl")[0] == 0
    assert Path("output.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_sweep(elf, run):
    """Its renames: the empty results; samples, their origin and results of each setting. The second setting's line is
    missing."""
    command = ["sweep", run, "--data", run.parent / "data", "-n", 6, "--steps", "2,5", "-o"]
    assert elf(*command, "whole")[0] == 0
    killed(6, *command, "output")
    found, whole = content(Path("output")), content(Path("whole"))
    assert found.items() <= whole.items() and len(whole) - len(found) == 1
    code, _, err = elf(*command, "output")
    assert code == 0 and "1 already done" in err and content(Path("output")) == whole
