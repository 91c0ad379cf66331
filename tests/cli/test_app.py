"""The command line as a user sees it: exit codes, what goes to which stream, and how fast help is."""

import json
import statistics
import subprocess
import sys
import time

import pytest

from elfcli.cli import config as config_command
from elfcli.errors import ElfError

HEAVY = ["pydantic", "jax", "transformers", "datasets", "numpy", "flax", "yaml", "rich"]


def test_version_and_help(elf):
    code, out, _ = elf("--version")
    assert code == 0 and out.startswith("elf ")
    code, out, err = elf("--help")
    assert code == 0 and "config" in out and err == ""
    code, out, err = elf()
    assert code == 2 and "config" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["confg"], "Did you mean 'config'?"),
        (["config", "shwo"], "Did you mean 'show'?"),
        (["config", "show", "--frmat", "json"], "--format"),
        (["config", "show", "--format", "xml"], "toml or json"),
        (["config", "check"], "Missing argument"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(elf, arguments, said):
    code, out, err = elf(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_show_in_every_format(elf):
    code, out, err = elf("config", "show", "--task", "toy-de-en", "-s", "seed=3")
    assert code == 0 and err == "" and "seed = 3  # --set" in out
    code, out, _ = elf("config", "show", "--format", "json", "-s", "seed=3")
    assert code == 0 and json.loads(out)["training"]["seed"] == 3
    code, out, _ = elf("config", "show", "--model", "ELF-S")
    assert code == 0 and "depth = 8  # model preset" in out


def test_show_prints_warnings_on_stderr(elf):
    code, out, err = elf("config", "show", "-s", "wandb_resume=allow")
    assert code == 0 and err.startswith("warning: --set: wandb_resume") and "warning" not in out


def test_check_reports_every_problem_of_every_file(elf, tmp_path):
    good, bad, worse = (tmp_path / name for name in ("good.toml", "bad.toml", "worse.yaml"))
    good.write_text("seed = 1\n")
    bad.write_text("sede = 1\nlr = true\n")
    worse.write_text("a: 1\na: 2\n")
    code, out, err = elf("config", "check", good, bad, worse, tmp_path / "gone.toml", "--devices", 1)
    assert code == 2
    assert out == f"{good}: ok\n"
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        f"{bad}:1",
        f"{bad}:2",
        f"{worse}:2",
        str(tmp_path / "gone.toml"),
    ]


def test_check_counts_devices(elf, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("batch_size = 10\n")
    assert elf("config", "check", path, "--devices", 5)[0] == 0
    code, out, err = elf("config", "check", path, "--devices", 4)
    assert (code, out) == (2, "") and "4 devices cannot share 10 examples" in err


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (ElfError("the disk is full"), 1, "error: the disk is full\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (ValueError("a\nb"), 1, "error: unexpected ValueError: a b (run with --debug for the traceback)\n"),
    ],
)
def test_failures_are_one_line_and_tracebacks_come_with_debug(elf, monkeypatch, failure, code, said):
    def fail(_):
        raise failure

    monkeypatch.setattr(config_command, "warn", fail)
    assert elf("config", "show") == (code, "", said)
    for arguments in (["config", "show", "--debug"], ["--debug", "config", "show"]):
        found, _, err = elf(*arguments)
        assert found == code and "Traceback" in err
    monkeypatch.setenv("ELF_DEBUG", "1")
    assert "Traceback" in elf("config", "show")[2]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom elfcli.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


def test_help_takes_at_most_three_times_as_long_as_importing_typer():
    def seconds(*arguments):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.perf_counter() - start

    pairs = [(seconds("-c", "import typer"), seconds("-m", "elfcli", "--help")) for _ in range(7)]
    bare, full = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert full <= 3 * bare


def test_a_removed_command_names_what_to_use_instead(elf):
    code, _, err = elf("fit-grid", "run")
    assert code == 2 and "removed" in err and "--time-schedule uniform" in err and len(err.splitlines()) == 1
