"""Finds and reads files of models in a local folder or a Hub repository: JSON, safetensors, sharded weights."""

import json
from pathlib import Path

import numpy as np

from elfcli.errors import InputError, first_line
from elfcli.hub_access import from_hub, hub_reachable, looks_like_a_path
from elfcli.weights.names import WEIGHTS_FILE


class NoSuchFile(InputError):
    """A file that a folder, a repository or the cache does not have."""


def fetch(name: str, filename: str, what: str) -> Path:
    """Return the path of `filename` in a local folder or a Hub repository `org/name[@revision]`. what: the model in
    messages. Raise NoSuchFile, or InputError if the folder or repository cannot be read."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / filename).is_file():
            raise NoSuchFile(f"{folder}: the {what} needs {filename}, which is missing")
        return folder / filename
    if looks_like_a_path(name):
        raise InputError(f"{name}: no such folder (expected the {what})")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    local = not hub_reachable()  # checked first because the client retries for long
    with from_hub(f"{name}: the {what}"):
        try:
            return Path(hf_hub_download(repo, filename, revision=revision or None, local_files_only=local))
        except LocalEntryNotFoundError:
            raise NoSuchFile(f"{name}: there is no such local folder, the cache has no {filename}, and the Hub cannot "
                             f"be reached for the {what}; choose a local folder") from None  # fmt: skip
        except EntryNotFoundError:
            raise NoSuchFile(f"{name}: the {what} needs {filename}, which this repository does not have") from None


def read_json(path: Path) -> dict:
    """Return the JSON object of a file. Raise InputError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return every array of a safetensors file, as float32."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="flax") as file:  # flax, because numpy has no bfloat16
            return {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({first_line(error)})") from None


def weights(name: str, what: str) -> dict[str, np.ndarray]:
    """Return all arrays of a folder or Hub name as float32, from one file or several, which are read one by one."""
    return {array: value for path in weight_files(name, what) for array, value in read_safetensors(path).items()}


def weight_files(name: str, what: str) -> list[Path]:
    """Return `model.safetensors`, or without it the files that the index names. Raise InputError if one is missing."""
    try:
        return [fetch(name, WEIGHTS_FILE, what)]
    except NoSuchFile as missing:
        try:
            index = fetch(name, "model.safetensors.index.json", what)
        except NoSuchFile:
            raise missing from None
    by_array = read_json(index).get("weight_map")
    parts = set(map(str, by_array.values())) if isinstance(by_array, dict) else set()
    if not parts:
        raise InputError(f"{index}: it has no weight_map")
    for part in parts:
        if Path(part).name != part or part.startswith("."):
            raise InputError(f"{index}: {part!r} is outside the folder; only files next to the index are read")
    return [fetch(name, part, what) for part in sorted(parts)]
