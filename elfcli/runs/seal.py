"""The seal of a complete checkpoint, `STEP/elf_manifest.json`: size and hash of each of its files.

Orbax notices some damage by itself, but not always a flipped bit in an uncompressed array.
"""

import json
from pathlib import Path

import xxhash

from elfcli.outputs import write_whole

MANIFEST_FILE = "elf_manifest.json"


def seal(checkpoint: Path) -> None:
    """Writes the manifest of a complete checkpoint, unless there is one."""
    if not is_sealed(checkpoint):
        files = {str(path.relative_to(checkpoint)): file_record(path) for path in files_of(checkpoint)}
        write_whole(checkpoint / MANIFEST_FILE, json.dumps({"files": files}, indent=1) + "\n")


def is_sealed(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST_FILE).exists()


def damage(checkpoint: Path, part: str = "") -> str | None:
    """The first damaged file of a checkpoint (or of its `part`), and how; None where it is intact, or has no manifest
    since the process died before sealing it."""
    file = checkpoint / MANIFEST_FILE
    if not file.exists():
        return None
    try:
        expected = json.loads(file.read_bytes())["files"]
        for name, (size, digest) in expected.items():
            path = checkpoint / name
            if part and not name.startswith(f"{part}/"):
                continue
            if not path.is_file():
                return f"{path} is missing"
            found = path.stat().st_size
            if found != size:
                return f"{path} has {found:,} bytes, it had {size:,}"
            if file_record(path)[1] != digest:
                return f"{path} is not what was saved (its hash differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{file} cannot be read ({' '.join(str(error).split())})"
    return None


def files_of(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def file_record(path: Path) -> tuple[int, str]:
    """(bytes, hash) of a file."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
        return file.tell(), digest.hexdigest()
