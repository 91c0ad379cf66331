"""Every command in a code block of the pages is run on tiny data, or listed here with the reason why it is not.

The commands of a block are run one after the other in a folder that holds what the page speaks of: texts, tokenized
data and runs. Networks and lengths are tiny; beside that the commands are as they stand. What compiles is marked slow:
`pytest -m slow tests/test_docs_commands.py`.
"""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_docs import PAGES, ROOT
from tiny_run import tiny_run

HUB = "needs the Hugging Face Hub"
INSTALLS = "installs the package, as CI does; tests/cli/test_demo.py runs the demo"
PODS = "needs several hosts; tests/parallel and tests/many_processes.py run their parts"
NOT_RUN = {
    r"python3 -m venv ": INSTALLS,
    r"pip install ": "installs a plugin, then runs tests or measurements",
    r"elf demo$": "takes minutes; tests/cli/test_demo.py runs it in small",
    r"elf .*\b(ELF-B-|google-t5/|google/)": HUB,
    r"elf push-to-hub ": HUB,
    r"elf (distill .*--objective mmd|sample .*@mmd)": "needs free text; tests/training/test_distill.py trains it",
    r"elf plan .*--topology v": "needs libtpu; tests/planning/test_plan.py compiles for slices where it is there",
    r"elf plan .*--topology h100": "needs JAX's CUDA plugin; tests/planning/test_gpus.py compiles where it is there",
    r"gcloud ": PODS,
    r"#!/bin/bash\n#SBATCH ": PODS,
    r"elf train .*--coordinator ": PODS,
    r"until elf resume /shared/": PODS,
}
"""What the beginning of a command that is not run matches, and why it is not."""
FAST = r"elf (tokenize|config show|runs|report|eval-bleu|export) "
"""Commands that compile nothing."""
NO_COMMANDS = ("@article{", "__main__.py ")
"""What blocks without a language begin with that are no shell commands."""
SMALLER = {
    r"--train-tokenizer 4000": "--train-tokenizer 26",
    r"--minutes \d+": "--steps 2",
    r"--overfit 32": "--overfit 32 --steps 2",
    r"--rounds 16,8,4,2,1": "--rounds 16,8,4",
}
"""What of a command is made smaller."""
TINY = {"HIDDEN_SIZE": 16, "DEPTH": 1, "NUM_HEADS": 2, "BOTTLENECK_DIM": 8, "EMBEDDING_DIM": 8, "ROUND_STEPS": 1}
MADE = r"(?:-o|--output|--json|--trace|export \S+) (\S+)"
"""What a command writes."""


@dataclass(frozen=True)
class Block:
    name: str
    commands: tuple[str, ...]


def commands_in(text: str) -> tuple[str, ...]:
    """The commands of a code block: one a line, but for continued lines and scripts."""
    if text.startswith("#!"):
        return (text,)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return tuple(line.removeprefix("$ ").split("  #")[0].strip() for line in lines if line.strip())


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of shell commands: those that name a shell, or no language."""
    found = re.finditer(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.S | re.M)
    shown = [match[2] for match in found if match[1] in ("", "sh", "bash", "shell", "console")]
    shown = [text for text in shown if not text.startswith(NO_COMMANDS)]
    return [Block(f"{page.relative_to(ROOT)}-{n}", commands_in(text)) for n, text in enumerate(shown, 1)]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def why_not(command: str) -> str | None:
    """Why a command is not run; None for one that is."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command)), None)


def is_fast(command: str) -> bool:
    return re.match(FAST, command + " ") is not None


def runs(block: Block, fast: bool) -> list[str]:
    """The commands of a block that are run: in the fast test those that compile nothing, else all."""
    return [command for command in block.commands if why_not(command) is None and (is_fast(command) or not fast)]


def blocks(fast: bool) -> list:
    """Parameters: the blocks that have something to run."""
    found = [block for block in BLOCKS if any(is_fast(command) or not fast for command in runs(block, fast))]
    found = found if fast else [block for block in found if not all(map(is_fast, runs(block, fast)))]
    return [pytest.param(block, id=block.name) for block in found]


ROWS = [(f"ein wort {i % 7} und {i % 5}", f"one word {i % 7} and {i % 5}") for i in range(32)]


def write_texts(folder: Path) -> None:
    for name in ("train", "valid", "test"):
        (folder / f"{name}.csv").write_text("de,en\n" + "".join(f"{de},{en}\n" for de, en in ROWS))
    (folder / "book.txt").write_text("Once upon a time, Dear, thank you for. Yours\n" * 32)
    (folder / "test.jsonl").write_text("".join(json.dumps({"de": de, "en": en}) + "\n" for de, en in ROWS))


def furnish(folder: Path, commands: list[str], run: Path, data: Path) -> None:
    """Puts into the folder what the commands read and no earlier one of them writes."""
    write_texts(folder)
    written = set()
    for command in commands:
        for name in set(re.findall(r"\b(?:runs|data|elf-demo)/[\w-]+|\b[\w-]+\.jsonl", command)) - written:
            place = folder / name
            if name in re.findall(MADE, command) or place.exists():
                continue
            if name.endswith(".jsonl"):
                lines = [json.dumps({"id": i, "generated": en, "input": de, "template": "Dear [..]"})
                         for i, (de, en) in enumerate(ROWS)]  # fmt: skip
                place.write_text("\n".join(lines) + "\n")
            else:
                shutil.copytree(data if name.startswith("data/") else run, place)
        written |= set(re.findall(MADE, command))


def run_block(elf, commands: list[str]) -> None:
    """Runs the commands in the folder; a pipe's first part alone, with `elf` in this process."""
    for command in commands:
        for pattern, smaller in SMALLER.items():
            command = re.sub(pattern, smaller, command)
        words = shlex.split(command.split(" | ")[0])
        assert words[0] == "elf", f"{command!r}: teach this test to run it, or say in NOT_RUN why it is not run"
        code, _, err = elf(*words[1:])
        assert code == 0, f"{command}: {err}"
        for made in re.findall(MADE, command):
            assert Path(made).exists(), f"{command}: {made} was not made"


@pytest.fixture
def tiny(elf, tmp_path, monkeypatch):
    """`elf` with tiny settings, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in TINY.items():
        monkeypatch.setenv(f"ELF_{name}", str(value))
    return elf


@pytest.mark.parametrize("block", blocks(fast=True))
def test_commands_that_compile_nothing(tiny, tmp_path, block):
    furnish(tmp_path, runs(block, fast=True), tiny_run(), tiny_run().parent / "data")
    run_block(tiny, runs(block, fast=True))


OWN: dict[str, Path] = {}
"""A run and its data, which are made once."""


@pytest.fixture
def own(tiny, tmp_path_factory):
    """(run, data) of one's own pairs, as the README makes them."""
    if not OWN:
        folder = tmp_path_factory.mktemp("own")
        write_texts(folder)
        given = ["--input", folder / "train.csv", "--validation", folder / "valid.csv"]
        keys = ["--source-key", "de", "--target-key", "en", "--train-tokenizer", 26]
        for command in (["tokenize", *given, *keys, "-o", folder / "data"],
                        ["train", "--data", folder / "data", "--steps", 2, "--output", folder / "run"]):  # fmt: skip
            code, _, err = tiny(*command)
            assert code == 0, err
        OWN.update(run=folder / "run", data=folder / "data")
    return OWN["run"], OWN["data"]


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(fast=False))
def test_commands_that_compile(tiny, own, tmp_path, block):
    """With the block's other commands, as a reader would enter them."""
    furnish(tmp_path, runs(block, fast=False), *own)
    run_block(tiny, runs(block, fast=False))


def test_every_command_is_run_or_listed_with_a_reason():
    commands = [command for block in BLOCKS for command in block.commands]
    unknown = [command for command in commands if why_not(command) is None and not command.startswith("elf ")]
    assert not unknown, "run these in run_block, or say in NOT_RUN why they are not run"
    idle = [pattern for pattern in NOT_RUN if not any(re.match(pattern, command) for command in commands)]
    assert not idle, "no page shows these any more"
    run = [command for command in commands if why_not(command) is None]
    assert len(run) > len(commands) / 2 and sum(map(is_fast, run)) > 10, "most are run, and many in every test run"


def test_the_check_reads_blocks_as_a_reader_does(tmp_path):
    text = "elf train \\\n  --steps 3\n$ elf runs | head\nelf eval  # says BLEU\nls\n"
    assert commands_in(text) == ("elf train --steps 3", "elf runs | head", "elf eval", "ls")
    assert commands_in("#!/bin/bash\nelf train\n") == ("#!/bin/bash\nelf train\n",)
    assert why_not("ls") is None and why_not("elf sample --checkpoint ELF-B-owt -n 4") == HUB
    with pytest.raises(AssertionError, match="teach this test"):
        run_block(None, ["ls"])
