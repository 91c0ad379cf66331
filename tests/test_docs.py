"""The pages: every command shown has only options that exist, every link leads somewhere, the site builds."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from elfcli.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def commands_of(page: Path) -> list[str]:
    """Lines of code blocks that call `elf`, and commands in running text that have options."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`(?:\$ )?(elf [a-z][^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    found = [
        part for line in lines for part in re.split(r" && | \| | # ", line.removeprefix("$ ")) if "elf " in part[:30]
    ]
    return [part[part.index("elf ") :].strip() for part in found if re.search(r"(^|/)elf [a-z]", part)] + [
        " ".join(span.split()) for span in spans if " --" in span
    ]


def unknown_options(line: str) -> list[str]:
    """What in a command line is neither a command nor an option, nor an alias of one."""
    words = shlex.split(line.replace("...", "").replace("|", " "), comments=True)[1:]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return [words[0]]
        command = command.commands[words.pop(0)]
    known = {name for option in command.params for name in option.opts} | {"--help", "-h", "--debug"}
    return [word for word in words if re.match(r"--?[a-zA-Z]", word) and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_only_options_that_exist(page):
    wrong = {line: found for line in commands_of(page) if (found := unknown_options(line))}
    assert not wrong


def test_the_check_sees_what_is_wrong():
    assert unknown_options("elf train --data DIR --minuets 3") == ["--minuets"]
    assert unknown_options("elf trian") == ["trian"]
    assert unknown_options("elf config show --data DIR -s lr=1") == []
    assert sum(len(commands_of(page)) for page in PAGES) > 60


def test_the_site_builds_without_a_warning(tmp_path):
    """With the pages made from the code: every command and every setting."""
    pytest.importorskip("mkdocs")
    words = ("mkdocs", "build", "--strict", "-q", "-d", str(tmp_path))
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    settings = (tmp_path / "reference" / "settings" / "index.html").read_text(encoding="utf-8")
    assert "elf distill" in commands and "--time-shift" in commands and "denoiser_p_mean" in settings
    assert "Alias of the argument" in commands and "--json</code>, <code>--format" not in commands
    formulas = (tmp_path / "explain" / "index.html").read_text(encoding="utf-8")
    assert formulas.count("<math") > 20 and "arithmatex" not in formulas
    built = {page.parent.name: page.read_text(encoding="utf-8") for page in tmp_path.rglob("index.html")}
    assert not {name: found for name, page in built.items() if (found := items_within_paragraphs(page))}
    assert items_within_paragraphs("<p>Times:\n- even\n- drawn</p>") == ["- even", "- drawn"]


def items_within_paragraphs(page: str) -> list[str]:
    """Lines of a built page's paragraphs that begin like an item of a list, which was not rendered as one."""
    paragraphs = re.findall(r"<p>(.*?)</p>", page, re.S)
    return [line for text in paragraphs for line in re.findall(r"^ *(?:[-*+]|\d+\.) .*", text, re.M)]
