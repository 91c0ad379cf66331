"""The README's own-text example, as it stands there, on a tiny corpus and network."""

import json
import re
import shlex
import shutil
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_own_text_in_three_lines(elf, tmp_path, monkeypatch):
    section = README.read_text(encoding="utf-8").split("## Your own text")[1]
    commands = re.search(r"```\n(.*?)```", section, re.DOTALL)[1].strip().splitlines()
    assert len(commands) == 3
    rows = "".join(f"ein wort {i % 7} und {i % 5},one word {i % 7} and {i % 5}\n" for i in range(32))
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.csv").write_text("de,en\n" + rows)
    monkeypatch.chdir(tmp_path)
    for name, value in {"num_workers": 0, "hidden_size": 16, "depth": 1, "num_heads": 2, "bottleneck_dim": 8}.items():
        monkeypatch.setenv(f"ELF_{name.upper()}", str(value))
    said = ""
    for command in commands:
        # Only the length of the vocabulary and of the run are this test's own.
        arguments = shlex.split(command.replace("--train-tokenizer 4000", "--train-tokenizer 26"))
        arguments = shlex.split(shlex.join(arguments).replace("--minutes 30", "--steps 3"))
        assert arguments[0] == "elf"
        code, out, err = elf(*arguments[1:])
        assert code == 0, err
        said += out + err
        if arguments[1] == "train":
            shutil.rmtree("data/my/vectors")  # the run has its own
    assert "validation: 32 of 32 documents are also in train" in said and "data/my/vectors" in said
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 32 and lines[0]["input"] == "ein wort 0 und 0"
    assert lines[0]["reference"] == "one word 0 and 0"
