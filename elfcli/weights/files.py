"""Finds and reads files of models in a local folder or a Hub repository: JSON, and weights in one file or in shards, as
safetensors, flax's msgpack or PyTorch's pickle."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from elfcli.errors import InputError, first_line
from elfcli.hub_access import from_hub, hub_reachable, looks_like_a_path
from elfcli.weights.names import WEIGHTS_FILE
from elfcli.weights.pickles import read_torch

WEIGHTS_FILES = (WEIGHTS_FILE, "flax_model.msgpack", "pytorch_model.bin")
"""Names of weights, the first of which that exists is read; `NAME.index.json` names the files of weights in shards."""


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


def read_safetensors(path: Path, wanted: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file whose names begin with the pattern, as float32."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="flax") as file:  # flax, because numpy has no bfloat16
            names = [name for name in file.keys() if re.match(wanted, name)]  # noqa: SIM118
            return {name: np.asarray(file.get_tensor(name), np.float32) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({first_line(error)})") from None


def read_msgpack(path: Path) -> dict[str, Any]:
    """Return the tree of arrays in a file that flax serialized."""
    from flax.serialization import msgpack_restore

    try:
        return dict(msgpack_restore(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # msgpack raises many kinds
        raise InputError(f"{path}: not a flax checkpoint, or a damaged one ({first_line(error)})") from None


def read_flax(path: Path, wanted: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a `flax_model.msgpack` by the names that PyTorch's weights have, as float32: kernels are
    transposed."""
    from flax.traverse_util import flatten_dict

    arrays = {}
    for parts, leaf in flatten_dict(read_msgpack(path)).items():
        name = ".".join(
            (*parts[:-1], {"kernel": "weight", "embedding": "weight", "scale": "weight"}.get(parts[-1], parts[-1]))
        )
        if re.match(wanted, name):
            arrays[name] = np.asarray(leaf.T if parts[-1] == "kernel" else leaf, np.float32)
    return arrays


def weights(name: str, what: str, wanted: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a folder or Hub name as float32, from one file or several, which are read one by one.

    wanted: pattern that begins the names of the arrays to read, by default all.
    """
    arrays: dict[str, np.ndarray] = {}
    for path in weight_files(name, what):
        if path.suffix == ".msgpack":
            arrays |= read_flax(path, wanted)
        elif path.suffix == ".bin":
            arrays |= read_torch(path, re.compile(wanted).match)
        else:
            arrays |= read_safetensors(path, wanted)
    return arrays


def weight_files(name: str, what: str) -> list[Path]:
    """Return the first of WEIGHTS_FILES that exists, or the files that its index names. Raise InputError if one is
    missing."""
    missing = None
    for file in WEIGHTS_FILES:
        try:
            return [fetch(name, file, what)]
        except NoSuchFile as error:
            missing = missing or error
        try:
            index = fetch(name, f"{file}.index.json", what)
        except NoSuchFile:
            continue
        return [fetch(name, part, what) for part in _shards(index)]
    raise NoSuchFile(f"{missing}; neither {' nor '.join(WEIGHTS_FILES[1:])} is there")


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index names. Raise InputError if one is not next to it."""
    by_array = read_json(index).get("weight_map")
    parts = set(map(str, by_array.values())) if isinstance(by_array, dict) else set()
    if not parts:
        raise InputError(f"{index}: it has no weight_map")
    for part in parts:
        if Path(part).name != part or part.startswith("."):
            raise InputError(f"{index}: {part!r} is outside the folder; only files next to the index are read")
    return sorted(parts)
