"""Finds the task and model presets (`configs/` of a checkout, `elfcli/configs` of an installed package)."""

from pathlib import Path

from elfcli.errors import InputError, did_you_mean


def presets_dir() -> Path:
    """Folder that holds `tasks/`, `models/` and `sampling/`."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def task_names() -> list[str]:
    """Names of the task presets, sorted."""
    return _names("tasks")


def model_names() -> list[str]:
    """Names of the model presets, sorted."""
    return _names("models")


def preset_path(kind: str, name: str) -> Path:
    """File of the preset `name`; `kind` is `task` or `model`. Raises InputError for an unknown name."""
    known = _names(f"{kind}s")
    if name not in known:
        raise InputError(f"unknown {kind} '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")
    return presets_dir() / f"{kind}s" / f"{name}.toml"


def pair_path(task: str, model: str) -> Path | None:
    """File of what a task's recipe changes for one model, `tasks/TASK/MODEL.toml`; None where there is none."""
    path = presets_dir() / "tasks" / task / f"{model}.toml"
    return path if path.is_file() else None


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in (presets_dir() / kind).glob("*.toml"))
