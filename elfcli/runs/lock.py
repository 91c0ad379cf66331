"""One process per run folder: the process that trains locks `RUN/.lock`; the system unlocks it when the process ends.

The file stays and names the process that locked it last.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elfcli.errors import ElfError
from elfcli.runs.folder import LOCK_FILE
from elfcli.ui.progress import is_first_process, say


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder, in process 0. ElfError names the process that holds the lock already."""
    if not is_first_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ElfError(f"{folder}: in use by {holder(path)}; wait for it or stop it") from None
        except OSError as error:
            say(f"warning: {folder} cannot be locked ({error.strerror}): make sure that nothing else trains in it")
        file.truncate(0)
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
        file.flush()
        yield


def holder(path: Path) -> str:
    """The process that holds the lock, as the file names it."""
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has locked the file, but not written yet
        return "another process"
