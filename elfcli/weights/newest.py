"""Chooses the checkpoint of `elf sample` and `elf eval` if none is named, and prints the choice in one line."""

import tomllib
from pathlib import Path

from elfcli.errors import InputError
from elfcli.runs.folder import CHECKPOINT_FOLDER, CONFIG_FILE, checkpoint_steps, is_run
from elfcli.ui.progress import say
from elfcli.weights.names import PUBLISHED


def chosen_checkpoint(given: str | None, task: str | None, model: str | None) -> str:
    """Return the given checkpoint, else the newest fitting run here, else the published one, or raise InputError."""
    if given is not None:
        return given
    about = " of " + " and ".join(name for name in (task, model) if name) if task or model else ""
    places = [Path("."), *sorted(Path(".").glob("*/")), *sorted(Path("runs").glob("*/"))]
    saved = [run for run in places if is_run(run) and checkpoint_steps(run)]
    if runs := [run for run in saved if matches_request(run, task, model)]:
        newest = max(runs, key=last_saved)
        say(f"no --checkpoint: using the newest run{about} in this folder, {newest}")
        return str(newest)
    name = f"{model or 'ELF-B'}-{task or 'owt'}"
    if name not in PUBLISHED:
        raise InputError(f"no run{about} in this folder or its runs/, and {name} is not published (there are "
                         f"{', '.join(PUBLISHED)}): train one with `elf train`, or pass --checkpoint")  # fmt: skip
    say(f"no --checkpoint and no run{about} in this folder: using the published {name}")
    return name


def last_saved(run: Path) -> float:
    """Return when the newest checkpoint was written (seconds since the epoch)."""
    return max((run / CHECKPOINT_FOLDER / str(step)).stat().st_mtime for step in checkpoint_steps(run))


def matches_request(run: Path, task: str | None, model: str | None) -> bool:
    """Return whether the run's settings name this task and this model. None allows any."""
    try:
        settings = tomllib.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
        return task in (None, settings["data"].get("task")) and model in (None, settings["network"].get("model"))
    except (OSError, ValueError, KeyError, AttributeError):
        return False
