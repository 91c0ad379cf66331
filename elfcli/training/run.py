"""The run folder: what it holds, and how each file gets there whole.

config.toml        the resolved configuration, every value with its origin; reproduces the run
environment.json   package versions, Python, platform, git state and command lines, one entry per start
tokenizer/         the tokenizer, so that the run can be sampled from anywhere
metrics.jsonl      one object per logged step
checkpoints/STEP/  Orbax checkpoints
"""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from elfcli.errors import InputError

CONFIG_FILE = "config.toml"
METRICS_FILE = "metrics.jsonl"
ENVIRONMENT_FILE = "environment.json"
PACKAGES = (
    "elfcli",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "datasets",
    "transformers",
    "numpy",
)


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is either the old one or the new one, also after a crash."""
    part = path.with_name(f".{path.name}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def is_run(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def create_run(folder: Path, config_text: str) -> None:
    """Makes a new run folder. InputError where one exists, or where the folder holds something else."""
    if is_run(folder):
        raise InputError(
            f"{folder} already holds a run; continue it with `elf resume {folder}`, or give another --output"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no run folder; give another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CONFIG_FILE, config_text)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def require_run(folder: Path) -> None:
    if not is_run(folder):
        why = "no such folder" if not folder.exists() else f"no {CONFIG_FILE} in it, so it is no run of `elf train`"
        raise InputError(f"{folder}: {why}")


def record_environment(folder: Path) -> None:
    """Adds this start to environment.json."""
    path = folder / ENVIRONMENT_FILE
    starts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    starts.append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: _version(name) for name in PACKAGES},
            "git": git_state(),
        }
    )
    write_whole(path, json.dumps(starts, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> dict | None:
    """Commit and whether anything differs from it, of the checkout the code runs from; None outside of one."""

    def git(*args):
        where = Path(__file__).parent
        return subprocess.run(
            ["git", *args], cwd=where, capture_output=True, text=True, check=True, timeout=10
        ).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def read_metrics(folder: Path) -> list[dict]:
    """The logged steps, in order; a last line cut short by a crash is left out."""
    path = folder / METRICS_FILE
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def truncate_metrics(folder: Path, step: int) -> None:
    """Drops the lines after `step`: a resumed run writes them again."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(folder) if row["step"] <= step]
    write_whole(folder / METRICS_FILE, "".join(kept))


def append_metrics(folder: Path, row: dict) -> None:
    with open(folder / METRICS_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
