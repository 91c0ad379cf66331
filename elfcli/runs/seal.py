"""The seal of a complete checkpoint, `STEP/elf_manifest.json`: size and hash of each of its files. Orbax notices some
damage by itself, but not always a flipped bit in an uncompressed array."""

import hashlib
import json
from pathlib import Path

import xxhash

from elfcli.outputs import write_whole

MANIFEST_FILE = "elf_manifest.json"


def seal(checkpoint: Path) -> None:
    """Write the manifest of a complete checkpoint, unless there is one."""
    if not is_sealed(checkpoint):
        files = {str(path.relative_to(checkpoint)): file_record(path) for path in files_of(checkpoint)}
        write_whole(checkpoint / MANIFEST_FILE, json.dumps({"files": files}, indent=1) + "\n")


def is_sealed(checkpoint: Path) -> bool:
    """Return whether the checkpoint has a manifest."""
    return (checkpoint / MANIFEST_FILE).exists()


def damage(checkpoint: Path, part: str = "") -> str | None:
    """Return the first damaged file of a checkpoint (or of its `part`) and its damage. None: it is intact, or has no
    manifest because the process died before sealing it."""
    manifest = checkpoint / MANIFEST_FILE
    if not manifest.exists():
        return None
    try:
        for name, (size, digest) in json.loads(manifest.read_bytes())["files"].items():
            path = checkpoint / name
            if part and not name.startswith(f"{part}/"):
                continue
            if not path.is_file():
                return f"{path} is missing"
            if (actual := path.stat().st_size) != size:
                return f"{path} has {actual:,} bytes, expected {size:,}"
            if file_record(path)[1] != digest:
                return f"{path} has changed since it was saved (its hash differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{manifest} cannot be read ({' '.join(str(error).split())})"
    return None


def files_of(checkpoint: Path) -> list[Path]:
    """Return all files of a checkpoint, sorted."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def file_record(path: Path) -> tuple[int, str]:
    """Return (bytes, hash) of a file."""
    with open(path, "rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()  # type: ignore
