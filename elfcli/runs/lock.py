"""One process per run folder: the process that trains locks `RUN/.lock`, and `RUN/.lock.json` names it. The system
unlocks the file when the process ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from elfcli.errors import ElfError
from elfcli.runs.folder import HOLDER_FILE, LOCK_FILE
from elfcli.ui.progress import is_first_process, say


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder, in process 0. Raise ElfError with the name of the process that holds the lock already."""
    if not is_first_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path, lock = folder / HOLDER_FILE, FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ElfError(f"{folder}: in use by {holder(path)}; wait for it or stop it") from None
    except (OSError, NotImplementedError) as error:
        say(f"warning: {folder} cannot be locked ({error}): make sure that no other process trains in it")
    try:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        path.write_text(json.dumps(who) + "\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def holder(path: Path) -> str:
    """Return the process that holds the lock, as the file names it."""
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has locked the file, but not written yet
        return "another process"
