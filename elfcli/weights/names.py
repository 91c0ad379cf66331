"""Names of files and of published models, and checkpoints found among paths. Imports no heavy library."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from elfcli.errors import InputError
from elfcli.runs.folder import CONFIG_FILE

WEIGHTS_FILE = "model.safetensors"
PUBLISHED = {
    "ELF-B-owt": ("owt", "ELF-B"),
    "ELF-M-owt": ("owt", "ELF-M"),
    "ELF-L-owt": ("owt", "ELF-L"),
    "ELF-B-de-en": ("de-en", "ELF-B"),
    "ELF-B-xsum": ("xsum", "ELF-B"),
    "ELF-B-PD-owt": ("owt", "ELF-B"),
    "ELF-B-MMD-owt": ("owt", "ELF-B"),
    "ELF-B-MMD-IRD-owt": ("owt", "ELF-B"),
}  # Task and model of each published checkpoint
STUDENTS = {"ELF-B-PD-owt": "student", "ELF-B-MMD-owt": "refine", "ELF-B-MMD-IRD-owt": "refine"}
"""Distilled checkpoints, and the file in configs/sampling to sample them with."""
REPOSITORIES = {
    "ELF-B-PD-owt": "ELF-B-PD-owt-torch",
    "ELF-B-MMD-owt": "yresearch/ELF-MMD-OWT/t5/elf-mmd",
    "ELF-B-MMD-IRD-owt": "yresearch/ELF-MMD-OWT/t5/elf-mmd-ird",
}
"""Repositories whose name differs from the checkpoint's; without an organization they are those of the authors of ELF.
What follows the repository's name is a folder in it."""


def published_name(name: str) -> str | None:
    """Return the published checkpoint that a name or the end of a path means, None if there is none."""
    parts = Path(name.partition("@")[0]).parts
    for known in PUBLISHED:
        for place in (known, REPOSITORIES.get(known, known)):
            end = tuple(place.split("/")[-3:])  # a local copy is not below an organization
            if parts[-len(end) :] == end:
                return known
    return None


def is_exported(folder: Path) -> bool:
    """Return whether `elf export` wrote this folder."""
    return (folder / WEIGHTS_FILE).is_file() and (folder / CONFIG_FILE).is_file()


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return the reference's checkpoints (files or folders) below a folder, by step."""
    paths = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("checkpoint_*")))
    return {step: folder / path for step, path in checkpoint_paths(paths).items()}


def checkpoint_paths(paths: Iterable[str]) -> dict[int, str]:
    """Return {step: path up to `checkpoint_<step>`} of relative paths such as `a/checkpoint_5/_METADATA`."""
    by_step: dict[int, str] = {}
    for path in paths:
        if match := re.match(r"(?:.*?/)?checkpoint_(\d+)(?=/|\Z)", path):
            by_step.setdefault(int(match[1]), match[0])
    return by_step


def read_export_note(path: Path) -> dict:
    """Return the note of `elf export` in a safetensors file: `step`, `weights` (ema or raw) and, if it is set,
    `text_position`; empty for other files."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads((file.metadata() or {}).get("elf", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
