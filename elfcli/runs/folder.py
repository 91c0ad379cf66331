"""The run folder. Its files are written whole: a crash leaves the old or the new version.

config.toml        the resolved configuration, every value with its origin; reproduces the run
data.json          fingerprint and size of the training data (not in runs of 0.1.0)
environment.json   package versions, Python, platform, git state and command lines, one entry per start
tokenizer/         the tokenizer, so that the run can be sampled from anywhere
metrics.jsonl      one object per logged step
best.json          the checkpoint that scored best, which is kept: step, figure and value
checkpoints/STEP/  Orbax checkpoints, each with a manifest of its files' sizes and hashes
.lock              locked by the process that trains, which .lock.json names
"""

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from elfcli.errors import ElfError, InputError
from elfcli.outputs import check_writable, folder_written_whole, write_whole
from elfcli.runs.secrets import holds_secret

CONFIG_FILE = "config.toml"
METRICS_FILE = "metrics.jsonl"
ENVIRONMENT_FILE = "environment.json"
DATA_FILE = "data.json"
BEST_FILE = "best.json"
LOCK_FILE, HOLDER_FILE = ".lock", ".lock.json"
CHECKPOINT_FOLDER = "checkpoints"
TOKENIZER_FOLDER = "tokenizer"
ENCODER_FOLDER, VECTORS_FOLDER = "encoder", "vectors"
"""An encoder that `elf encoder` of 0.2.0 trained, and the token vectors that `elf train` makes beside the data; both
are copied into the runs."""
LATENTS_FILE = "latents.json"  # in both of them: what they were made from
PACKAGES = (
    *("elfcli", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("grain", "datasets", "transformers", "numpy"),
)


def is_run(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def checkpoint_steps(run: Path) -> list[int]:
    """Steps of the run's checkpoints, in order."""
    return sorted(int(path.name) for path in (run / CHECKPOINT_FOLDER).glob("*/") if path.name.isdecimal())


def best_of(run: Path) -> dict | None:
    """{"step", "figure", "value"} of the best checkpoint; None where none is recorded, or it is not there any more."""
    path = run / BEST_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return found if found and found["step"] in checkpoint_steps(run) else None
    except (ValueError, TypeError, KeyError) as error:
        raise ElfError(f"{path}: damaged ({error}); move it away to go on") from None


def chosen_step(name: str | Path, steps: Collection[int], step: int | None) -> int:
    """`step`, or the newest of `steps` if it is None; InputError where checkpoints `name` have no such step."""
    if step is not None and step not in steps:
        raise InputError(f"{name}: no checkpoint of step {step}; there are {', '.join(map(str, sorted(steps)))}")
    return max(steps) if step is None else step


def check_new(folder: Path) -> None:
    """InputError where a new run cannot be created. Hidden files are allowed: a killed start leaves some."""
    if is_run(folder):
        raise InputError(
            f"{folder} already holds a run; continue it with `elf resume {folder}`, or give another --output"
        )
    if folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir())):
        raise InputError(f"{folder} exists and is no run folder; give another --output")
    check_writable(folder)


def create_run(folder: Path, config_text: str) -> None:
    """Creates a run folder. InputError where one exists, or where the folder holds something else."""
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CONFIG_FILE, config_text)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; give another --output") from None


def require_run(folder: Path) -> None:
    """InputError where `folder` holds no run."""
    if folder.is_file():
        raise InputError(f"{folder}: a file, not a run's folder")
    if not is_run(folder):
        why = "no such folder" if not folder.exists() else f"no {CONFIG_FILE} in it, so it is no run of `elf train`"
        raise InputError(f"{folder}: {why}; `elf runs` lists the runs here")


def record_start(folder: Path, step: int, tokenizer: Any, new_config: str | None = None) -> None:
    """Records that the run continues from `step`. new_config: text of config.toml, where settings have changed."""
    if new_config is not None:
        write_whole(folder / CONFIG_FILE, new_config)
    record_environment(folder)
    truncate_metrics(folder, step)
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Saves the tokenizer in the run, whole or not at all, unless there is one already."""
    if not (folder / TOKENIZER_FOLDER).exists():
        with folder_written_whole(folder / TOKENIZER_FOLDER) as new:
            tokenizer.save_pretrained(str(new))


def keep_encoder(encoder: str, folder: Path) -> None:
    """Copies the data's own encoder into the run, whole or not at all: the run can do without the data's folder, and
    another encoder there does not change it. encoder: name of the run's encoder, whatever its kind."""
    source = Path(encoder)
    if source.name in (ENCODER_FOLDER, VECTORS_FOLDER) and (source / LATENTS_FILE).is_file():
        with folder_written_whole(folder / source.name) as new:
            shutil.copytree(source, new, dirs_exist_ok=True)


def record_data(folder: Path, data: dict) -> None:
    """Puts down what the run is trained on."""
    write_whole(folder / DATA_FILE, json.dumps(data, indent=1) + "\n")


def require_same_data(folder: Path, data: dict, where: str) -> None:
    """InputError where the run was trained on other data; runs of 0.1.0 do not say."""
    path = folder / DATA_FILE
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else data
    except ValueError as error:
        raise ElfError(f"{path}: damaged ({error}); move it away to go on") from None
    if recorded != data:
        before = recorded.get("examples") if isinstance(recorded, dict) else None
        raise InputError(f"{folder}: trained on other data than {where} is now ({before} examples then, "
                         f"{data['examples']} here): give the former with --set data_path=DIR, or go on with this "
                         "one by --other-data")  # fmt: skip


def record_environment(folder: Path) -> None:
    """Adds this start to environment.json."""
    start = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": ["(left out: a secret)" if holds_secret(word) else word for word in sys.argv],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git_state(),
    }
    write_whole(folder / ENVIRONMENT_FILE, json.dumps([*recorded_starts(folder), start], indent=1) + "\n")


def recorded_starts(folder: Path) -> list[dict]:
    """The entries of environment.json; ElfError where it is damaged."""
    path = folder / ENVIRONMENT_FILE
    try:
        starts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError as error:
        raise ElfError(f"{path}: damaged ({error}); move it away to go on") from None
    if not isinstance(starts, list):
        raise ElfError(f"{path}: damaged (expected a list); move it away to go on")
    return starts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> dict | None:
    """Commit of the checkout that this code runs from, and whether files differ from it; None without a checkout."""

    def git(*args):
        where = Path(__file__).parent
        return subprocess.run(["git", *args], cwd=where, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def read_metrics(folder: Path) -> list[dict]:
    """The logged steps, in order, without a last line that a crash cut short. ElfError where another is damaged."""
    path = folder / METRICS_FILE
    rows: list[dict] = []
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"])} | row)
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                raise ElfError(f"{path}:{number}: damaged; mend or remove this line to go on") from None
    return rows


def truncate_metrics(folder: Path, step: int) -> None:
    """Removes the lines after `step`, since a resumed run writes them again."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(folder) if row["step"] <= step]
    write_whole(folder / METRICS_FILE, "".join(kept))


def append_metrics(folder: Path, row: dict) -> None:
    path = folder / METRICS_FILE
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from None
