"""What a checkpoint's files were when it was complete: `STEP/elf_manifest.json` with the size and hash of each.

Orbax and its storage notice some damage by themselves; a bit flipped in an array that is not compressed they may not.
"""

import json
from pathlib import Path

import xxhash

from elfcli.outputs import write_whole

MANIFEST_FILE = "elf_manifest.json"


def seal(checkpoint: Path) -> None:
    """Writes the manifest of a complete checkpoint that has none."""
    if not (checkpoint / MANIFEST_FILE).exists():
        files = {str(path.relative_to(checkpoint)): record(path) for path in files_of(checkpoint)}
        write_whole(checkpoint / MANIFEST_FILE, json.dumps({"files": files}, indent=1) + "\n")


def is_sealed(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST_FILE).exists()


def damage(checkpoint: Path, part: str = "") -> str | None:
    """The first thing wrong with a checkpoint (or with its `part`), with the file's name; None where it is intact, or
    where no manifest says what it was: the process died between saving and sealing."""
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
            if record(path)[1] != digest:
                return f"{path} is not what was saved (its hash differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{file} cannot be read ({' '.join(str(error).split())})"
    return None


def files_of(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def record(path: Path) -> tuple[int, str]:
    """(bytes, hash) of a file."""
    digest, size = xxhash.xxh3_128(), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
