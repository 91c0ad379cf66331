"""The checkpoint that `elf sample` and `elf eval` take where none is given; they say which in one line."""

import tomllib
from pathlib import Path

from elfcli.errors import InputError
from elfcli.runs.folder import CHECKPOINT_FOLDER, CONFIG_FILE, checkpoint_steps
from elfcli.ui.progress import say
from elfcli.weights.names import PUBLISHED

PUBLISHED_TASK, DEFAULT_MODEL = "owt", "ELF-B"


def chosen_checkpoint(given: str | None, task: str | None, model: str | None) -> str:
    """The given one, else the newest run here (of the task and model, where named), else the task's published one.

    InputError where there is none.
    """
    if given is not None:
        return given
    about = " of " + " and ".join(name for name in (task, model) if name) if task or model else ""
    runs = [run for run in runs_here() if matches_request(run, task, model)]
    if runs:
        newest = max(runs, key=lambda run: last_saved(run) or 0.0)
        say(f"no --checkpoint: taking the newest run{about} here, {newest}")
        return str(newest)
    name = f"{model or DEFAULT_MODEL}-{task or PUBLISHED_TASK}"
    if name not in PUBLISHED:
        raise InputError(
            f"no run{about} in this folder or its runs/, and {name} is not published (there are "
            f"{', '.join(PUBLISHED)}): train one with `elf train`, or give --checkpoint"
        )
    say(f"no --checkpoint and no run{about} here: taking the published {name}")
    return name


def runs_here() -> list[Path]:
    """Run folders with a checkpoint: the working folder, those in it and those in its `runs`."""
    folders = [Path("."), *sorted(Path(".").glob("*/")), *sorted(Path("runs").glob("*/"))]
    return [folder for folder in folders if (folder / CONFIG_FILE).is_file() and last_saved(folder) is not None]


def last_saved(run: Path) -> float | None:
    """When the newest checkpoint was written (seconds since the epoch); None without a checkpoint."""
    return max(((run / CHECKPOINT_FOLDER / str(step)).stat().st_mtime for step in checkpoint_steps(run)), default=None)


def matches_request(run: Path, task: str | None, model: str | None) -> bool:
    """Whether the run's settings name this task and this model; None allows any."""
    try:
        settings = tomllib.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
        found = settings["data"].get("task"), settings["network"].get("model")
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all(wanted in (None, have) for wanted, have in zip((task, model), found, strict=True))
