"""The run folder, whose files docs/reference/files.md lists. They are written whole: a crash leaves the old or the new
version."""

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

from elfcli.data.tokenizers import TOKENIZER_FOLDER
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
ENCODER_FOLDER, VECTORS_FOLDER, TEXT_VECTORS_FOLDER = OWN_ENCODERS = "encoder", "vectors", "text_vectors"
"""The encoder that `elf encoder` of 0.2.0 trained, and the token vectors that `elf train` makes next to pairs or free
texts. All are copied into the runs."""
LATENTS_FILE = "latents.json"  # in all of them: what they were made from
PACKAGES = (
    *("elfcli", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("grain", "datasets", "transformers", "numpy"),
)


def is_run(folder: Path) -> bool:
    """Return whether the folder holds a run."""
    return (folder / CONFIG_FILE).is_file()


def checkpoint_steps(run: Path) -> list[int]:
    """Return the steps of the run's checkpoints, sorted."""
    return sorted(int(path.name) for path in (run / CHECKPOINT_FOLDER).glob("*/") if path.name.isdecimal())


def _damaged(path: Path, reason: object) -> ElfError:
    """Return the error for a file of a run that cannot be read."""
    return ElfError(f"{path}: damaged ({reason}); move it away to continue")


def _read_json(path: Path, default: Any) -> Any:
    """Return the file's content, `default` if there is no file. Raise ElfError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default
    except ValueError as error:
        raise _damaged(path, error) from None


def best_of(run: Path) -> dict | None:
    """Return {"step", "figure", "value"} of the best checkpoint, None if none is recorded or it no longer exists."""
    best = _read_json(run / BEST_FILE, None)
    try:
        return best if best and best["step"] in checkpoint_steps(run) else None
    except (TypeError, KeyError) as error:
        raise _damaged(run / BEST_FILE, error) from None


def chosen_step(name: str | Path, steps: Collection[int], step: int | None) -> int:
    """Return `step`, or the newest of `steps` if it is None. Raise InputError if `steps` does not hold it."""
    if step is not None and step not in steps:
        raise InputError(f"{name}: no checkpoint of step {step}; there are {', '.join(map(str, sorted(steps)))}")
    return max(steps) if step is None else step


def check_new(folder: Path) -> None:
    """Raise InputError if a new run cannot be created. Hidden files are allowed: a killed start leaves some."""
    if is_run(folder):
        raise InputError(f"{folder} already holds a run; continue it with `elf resume {folder}`, or choose another "
                         "--output")  # fmt: skip
    if folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir())):
        raise InputError(f"{folder} exists and is not a run folder; choose another --output")
    check_writable(folder)


def create_run(folder: Path, config_text: str) -> None:
    """Create a run folder. Raise InputError as `check_new` does, or if it cannot be written."""
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CONFIG_FILE, config_text)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; choose another --output") from None


def require_run(folder: Path) -> None:
    """Raise InputError if the folder does not hold a run."""
    if folder.is_file():
        raise InputError(f"{folder}: a file, not a run's folder")
    if not is_run(folder):
        why = "no such folder" if not folder.exists() else f"not a run of `elf train` (it has no {CONFIG_FILE})"
        raise InputError(f"{folder}: {why}; `elf runs` lists the runs in this folder")


def record_start(folder: Path, step: int, tokenizer: Any, new_config: str | None = None) -> None:
    """Record that the run continues from `step`. new_config: text of config.toml, if settings have changed."""
    if new_config is not None:
        write_whole(folder / CONFIG_FILE, new_config)
    record_environment(folder)
    truncate_metrics(folder, step)
    if not (folder / TOKENIZER_FOLDER).exists():
        with folder_written_whole(folder / TOKENIZER_FOLDER) as new:
            tokenizer.save_pretrained(str(new))


def keep_encoder(encoder: str, folder: Path) -> None:
    """Copy the data's own encoder (no other kind) into the run, whole, so that the run does not depend on the data."""
    source = Path(encoder)
    if source.name in OWN_ENCODERS and (source / LATENTS_FILE).is_file():
        with folder_written_whole(folder / source.name) as new:
            shutil.copytree(source, new, dirs_exist_ok=True)


def record_data(folder: Path, data: dict) -> None:
    """Record the fingerprint and size of the training data."""
    write_whole(folder / DATA_FILE, json.dumps(data, indent=1) + "\n")


def require_same_data(folder: Path, data: dict, where: str) -> None:
    """Raise InputError if the run was trained on other data. Runs of 0.1.0 have no record of it."""
    recorded = _read_json(folder / DATA_FILE, data)
    if recorded != data:
        before = recorded.get("examples") if isinstance(recorded, dict) else None
        raise InputError(f"{folder}: trained on other data than {where} is now ({before} examples then, "
                         f"{data['examples']} now): choose the former with --set data_path=DIR, or continue with this "
                         "one by --other-data")  # fmt: skip


def record_environment(folder: Path) -> None:
    """Add this start to environment.json."""
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
    """Return the entries of environment.json. Raise ElfError if it is damaged."""
    starts = _read_json(folder / ENVIRONMENT_FILE, [])
    if not isinstance(starts, list):
        raise _damaged(folder / ENVIRONMENT_FILE, "expected a list")
    return starts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> dict | None:
    """Return the commit of this code's checkout and whether files differ from it, None without a checkout."""

    def git(*args: str) -> str:
        where = Path(__file__).parent
        return subprocess.run(["git", *args], cwd=where, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def read_metrics(folder: Path) -> list[dict]:
    """Return the logged steps, without a last line that a crash has truncated. Raise ElfError for other damage."""
    path = folder / METRICS_FILE
    rows: list[dict] = []
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"])} | row)
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                raise ElfError(f"{path}:{number}: damaged; fix or remove this line to continue") from None
    return rows


def truncate_metrics(folder: Path, step: int) -> None:
    """Remove the lines after `step`, because a resumed run writes them again."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(folder) if row["step"] <= step]
    write_whole(folder / METRICS_FILE, "".join(kept))


def append_metrics(folder: Path, row: dict) -> None:
    """Add a line to metrics.jsonl. Raise OSError with the name of the file."""
    path = folder / METRICS_FILE
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from None
