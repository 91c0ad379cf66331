"""Finds the task, model and encoder presets (`configs/` of a checkout, `elfcli/configs` of an installed package)."""

from pathlib import Path

from elfcli.errors import InputError, did_you_mean


def presets_dir() -> Path:
    """Return the folder that holds `tasks/`, `models/`, `encoders/` and `sampling/`."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def task_names() -> list[str]:
    """Return the names of the task presets, sorted."""
    return _names("tasks")


def model_names() -> list[str]:
    """Return the names of the model presets, sorted."""
    return _names("models")


def preset_path(kind: str, name: str) -> Path:
    """Return the file of the preset `name`. kind: `task` or `model`. Raises InputError if the name is unknown."""
    known = _names(f"{kind}s")
    if name not in known:
        raise InputError(f"unknown {kind} '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")
    return presets_dir() / f"{kind}s" / f"{name}.toml"


def encoder_path(name: str) -> Path | None:
    """Return `encoders/FAMILY.toml` of an encoder, by the beginning of its folder's or repository's name, if any."""
    own = Path(name.partition("@")[0]).name
    families = [family for family in _names("encoders") if own == family or own.startswith(f"{family}-")]
    return presets_dir() / "encoders" / f"{max(families, key=len)}.toml" if families else None


def pair_path(task: str, model: str) -> Path | None:
    """Return `tasks/TASK/MODEL.toml`, the task's changes for one model, or None if there is no such file."""
    path = presets_dir() / "tasks" / task / f"{model}.toml"
    return path if path.is_file() else None


def preset_name(path: Path) -> str | None:
    """Return the short name of a preset file, e.g. `toy-de-en` or `sampling/cond`, or None for other files."""
    try:
        inside = path.resolve().relative_to(presets_dir().resolve()).with_suffix("").as_posix()
    except ValueError:
        return None
    return inside.removeprefix("tasks/").removeprefix("models/")


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in (presets_dir() / kind).glob("*.toml"))
