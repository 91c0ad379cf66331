"""Files and folders of results: checked before the work starts, written whole or not at all.

The folder NAME is written as `.NAME.xxxxxxxx/new`, next to `replaced`, the old NAME until the new one has its name, and
to a lock, which is free once no process uses the working folder.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from elfcli.errors import InputError
from elfcli.ui.progress import say

LOCK = "elf-tokenize.lock"  # the name in 0.2.0, so that its leftovers are cleaned up as well
NEW, REPLACED = "new", "replaced"
ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")
"""Begin of an address such as gs://bucket/run, of which `Path` keeps one slash."""


def refuse_address(path: str | Path, what: str) -> None:
    """Raise InputError if a path that must be local is an address. what: the option, or what the path is."""
    if ADDRESS.match(str(path)):
        address = re.sub(":/+", "://", str(path), count=1)
        raise InputError(f"{what} {address}: an address, but this must be local; pass a local path, or mount the "
                         "bucket as a folder")  # fmt: skip


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves the old or the new one. Raise OSError with the name `path`."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from None


@contextmanager
def folder_written_whole(output: Path) -> Iterator[Path]:
    """Yield a new empty folder that becomes `output`, or replaces it, once the block has ended without error; its
    parent is for temporary files. A crash leaves the old or the new one; callers check that `output` may be
    replaced."""
    refuse_address(output, "--output")
    clear_killed(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    lock = FileLock(working / f"{LOCK}.new")
    try:
        with suppress(OSError, Timeout, NotImplementedError):  # without file locks no other process deletes this folder
            lock.acquire(timeout=0)
            (working / f"{LOCK}.new").rename(working / LOCK)  # named once it is held: others never see it free
        try:
            (working / NEW).mkdir(mode=0o755)
            yield working / NEW
            if output.exists():
                output.rename(working / REPLACED)
            (working / NEW).rename(output)
        finally:
            _put_back(working, output)
            _empty(working)
            lock.release()
    finally:
        if not (working / REPLACED).exists():  # it does if it could not be moved back
            shutil.rmtree(working, ignore_errors=True)


def clear_killed(output: Path) -> None:
    """Delete killed processes' working folders next to `output`, and move old content back, or raise OSError."""
    pattern = re.compile(re.escape(f".{output.name}.") + "[a-z0-9_]{8}")
    folders = [path for path in output.parent.glob(".*") if pattern.fullmatch(path.name) and (path / LOCK).is_file()]
    for working in sorted(folders, key=_changed, reverse=True):
        with suppress(Timeout, OSError, NotImplementedError), FileLock(working / LOCK, timeout=0):
            if working.is_symlink():
                continue
            if _put_back(working, output):
                say(f"{output}: restored; a process was killed while it replaced this folder")
            _empty(working)
            shutil.rmtree(working, ignore_errors=True)


def _changed(folder: Path) -> float:
    """Return the time of the last change, 0 for a folder that is gone."""
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _put_back(working: Path, output: Path) -> bool:
    """Move a replaced folder back if `output` is missing, and return whether it was moved."""
    if output.exists() or not (working / REPLACED).exists():
        return False
    (working / REPLACED).rename(output)
    return True


def _empty(working: Path) -> None:
    """Delete all but the lock, which marks the rest as ours if this process is killed as well."""
    if (working / REPLACED).exists():
        (working / REPLACED).rename(working / "old")  # half deleted, it must not be moved back
    for path in working.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            with suppress(OSError):
                path.unlink()


def check_writable(path: Path, option: str = "--output") -> None:
    """Raise InputError if nothing can be created at `path`. Leave no file behind."""
    refuse_address(path, option)
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}: {nearest}); choose another {option}") from None


def check_output_file(path: Path | None, overwrite: bool, option: str = "--output") -> None:
    """Raise InputError if a file of results could not be written later. To be called before the work starts."""
    if path is None:
        return
    # A rename would replace a link, and /dev/stdout is a link that may lead to a file.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path}: a link, a folder or a device, not a file; choose another {option}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another {option}, or pass --overwrite")
    check_writable(path, option)


def write_output(path: Path, content: str | bytes, overwrite: bool = False, option: str = "--output") -> None:
    """Write a file of results whole, with the folders above it. InputError names the `option` to change."""
    check_output_file(path, overwrite, option)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another {option}") from None


def write_result(path: Path | None, result: Any, overwrite: bool = False) -> None:
    """Write the result as JSON to the file that `--json` names, if any."""
    if path is not None:
        write_output(path, json.dumps(result, indent=1, allow_nan=False) + "\n", overwrite, "--json")
