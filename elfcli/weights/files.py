"""Loads T5 encoders from a Hugging Face folder or by Hub name (safetensors), and writes them."""

import json
from pathlib import Path

import numpy as np

from elfcli.errors import InputError, first_line
from elfcli.weights.names import WEIGHTS_FILE

INDEX_FILE = "model.safetensors.index.json"


class NoSuchFile(InputError):
    """A folder, a repository or the cache does not have a file."""


def fetch(name: str, filename: str, what: str) -> Path:
    """Path of `filename` in a local folder or a Hub repository `org/name[@revision]`; InputError without it."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / filename).is_file():
            raise NoSuchFile(f"{folder}: no {filename}, which the {what} needs")
        return folder / filename
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"{name}: no such folder, wanted as the {what}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from elfcli.hub_access import from_hub, hub_reachable

    repo, _, revision = name.partition("@")
    local = not hub_reachable()  # asked first because the client retries for long
    with from_hub(f"{name}: the {what}"):
        try:
            return Path(hf_hub_download(repo, filename, revision=revision or None, local_files_only=local))
        except LocalEntryNotFoundError:
            raise NoSuchFile(f"{name}: no such folder here, no {filename} in the cache, and the Hub cannot be "
                             f"reached for the {what}; give a local folder") from None  # fmt: skip
        except EntryNotFoundError:
            raise NoSuchFile(f"{name}: no {filename} in this repository, which the {what} needs") from None


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every array of a safetensors file, as float32."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="flax") as file:  # flax, because numpy has no bfloat16
            return {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({first_line(error)})") from None


def weights(name: str, what: str) -> dict[str, np.ndarray]:
    """All arrays, as float32, of the weights of a folder or Hub name: of one file, or of several, read one by one."""
    return {array: value for path in weight_files(name, what) for array, value in read_safetensors(path).items()}


def weight_files(name: str, what: str) -> list[Path]:
    """`model.safetensors`, or where there is none the files that its index names. InputError where one is missing,
    before any of them is read."""
    try:
        return [fetch(name, WEIGHTS_FILE, what)]
    except NoSuchFile as missing:
        try:
            index = fetch(name, INDEX_FILE, what)
        except NoSuchFile:
            raise missing from None
    named = read_json(index).get("weight_map")
    parts = set(map(str, named.values())) if isinstance(named, dict) else set()
    if not parts:
        raise InputError(f"{index}: no weight_map in it")
    for part in parts:
        if Path(part).name != part or part.startswith("."):
            raise InputError(f"{index}: {part!r} leaves its folder; only files beside the index are read")
    return [fetch(name, part, what) for part in sorted(parts)]
