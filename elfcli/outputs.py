"""Files of results: checked before the work starts, written whole or not at all."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from elfcli.errors import InputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old one or the new one, also after a crash; OSError names `path`."""
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


def check_writable(path: Path, option: str = "--output") -> None:
    """InputError where nothing can be made at `path`, checked before the work starts; no file stays behind."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}: {nearest}); give another {option}") from None


def check_output_file(path: Path | None, overwrite: bool, option: str = "--output") -> None:
    """InputError where a file of results could not be written later; checked before the work starts."""
    if path is None:
        return
    # A rename puts a file in the place of a link, and /dev/stdout is a link that may lead to a file.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path}: a link, a folder or a device, not a file; give another {option}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give another {option}, or --overwrite")
    check_writable(path, option)


def write_output(path: Path, content: str | bytes, overwrite: bool = False, option: str = "--output") -> None:
    """A file of results, whole or not at all; missing folders are made. InputError names the `option` to change."""
    check_output_file(path, overwrite, option)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give another {option}") from None


def write_result(path: Path | None, result: Any, overwrite: bool = False) -> None:
    """The result as JSON where the option `--json` asks for it; None: it does not."""
    if path is not None:
        write_output(path, json.dumps(result, indent=1, allow_nan=False) + "\n", overwrite, "--json")
