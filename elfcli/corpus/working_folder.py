"""The hidden working folder of `elf tokenize` beside its output, and cleaning up after a process that was killed.

.NAME.xxxxxxxx/elf-tokenize.lock  held with flock while a process works there; a free lock means that none does
.NAME.xxxxxxxx/replaced           the old data of --overwrite, kept until the new data has its name
"""

import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from elfcli.ui.progress import say

LOCK, REPLACED = "elf-tokenize.lock", "replaced"


@contextmanager
def working_folder(output: Path) -> Iterator[Path]:
    """A new folder beside `output`, deleted in the end; `replaced` is moved back if there is no new data."""
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with open(folder / f"{LOCK}.new", "w", encoding="utf-8") as file:
            with suppress(OSError):  # a file system without locks: no other process deletes this folder
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / f"{LOCK}.new").rename(folder / LOCK)  # named once it is held: others never see it free
            try:
                yield folder
            finally:
                _put_back(folder, output)
                _empty(folder)
    finally:
        if not (folder / REPLACED).exists():  # it does if it could not be moved back
            shutil.rmtree(folder, ignore_errors=True)


def clear_killed(output: Path) -> None:
    """Deletes the working folders of killed processes beside `output` and moves old data back from them.

    OSError where it cannot be moved back; what cannot be deleted stays.
    """
    named = re.compile(re.escape(f".{output.name}.") + "[a-z0-9_]{8}")
    found = [path for path in output.parent.glob(".*") if named.fullmatch(path.name) and (path / LOCK).is_file()]
    for folder in sorted(found, key=_changed, reverse=True):
        with _held(folder) as free:
            if not free or folder.is_symlink():
                continue
            if _put_back(folder, output):
                say(f"{output}: the data that was here is back; a process was killed while it replaced it")
            _empty(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Holds the lock of a working folder; False where another process does, or where it cannot be opened."""
    with ExitStack() as stack:
        free = False
        with suppress(OSError):
            file = stack.enter_context(open(folder / LOCK, "r+", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield free


def _changed(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _put_back(folder: Path, output: Path) -> bool:
    if output.exists() or not (folder / REPLACED).exists():
        return False
    (folder / REPLACED).rename(output)
    return True


def _empty(folder: Path) -> None:
    """Deletes all but the lock, which marks the rest as ours if this process is killed too."""
    if (folder / REPLACED).exists():
        (folder / REPLACED).rename(folder / "old")  # half deleted, it must not be moved back
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            with suppress(OSError):
                path.unlink()
