"""All processes end together: one that fails tells the others why, one that vanishes is missed.

A thread in every process writes a sign of life into the coordinator's key-value store. That of process 0 looks for
reasons of failures and for processes that have gone silent, prints one line, and tells the others to leave.
"""

import itertools
import json
import re
import threading
import time
from typing import Any, NoReturn

from elfcli.parallel.agree import barrier, client, leave, this_process

PERIOD = 1.0  # seconds between two looks
GRACE = 1.5  # for the reasons of others, which may be the cause of the first
SILENT = 40.0  # after which a process is given up
SILENT_BROKEN = 12.0  # the same once a connection between the processes broke
LEAVING = 10.0  # for the others to leave, and for a process to be told what to do
BROKEN = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|coordination|barrier|unavailable|aborted|"
    r"deadline.exceeded|heartbeat|peer",
    re.I,
)  # what a process says that fails because another one did

_over: threading.Event | None = None


def start() -> None:
    """Starts watching, once this process has joined the others."""
    global _over
    _over = threading.Event()
    threading.Thread(target=_watch, args=(_over,), name="watch", daemon=True).start()


def watching() -> bool:
    return _over is not None


def fail(text: str, code: int) -> NoReturn:
    """Tells the others why this process fails and waits to be ended with them."""
    index = this_process()
    try:
        client().key_value_set(f"elf/failed/{index}", json.dumps([text, code]), allow_overwrite=True)
        time.sleep(SILENT + LEAVING)
    except (RuntimeError, ValueError):  # no coordinator any more
        pass
    leave(f"process {index}: {text}", code)


def finish() -> None:
    """Waits for the others to get as far, and parts from them."""
    global _over
    import jax

    barrier()
    if _over is not None:
        _over.set()
        _over = None
    jax.distributed.shutdown()


def _watch(over: threading.Event) -> None:
    connection, index, beats = client(), this_process(), itertools.count()
    judge = Judge()
    lost: float | None = None
    while not over.wait(PERIOD):
        try:
            connection.key_value_set(f"elf/alive/{index}", str(next(beats)), allow_overwrite=True)
            if index == 0:
                verdict = judge.verdict(connection)
                if verdict is not None:
                    _end_all(connection, *verdict)
            else:
                for _, code in connection.key_value_dir_get("elf/verdict/"):
                    connection.key_value_set(f"elf/left/{index}", "")
                    leave("", int(code))
            lost = None
        except (RuntimeError, ValueError):
            lost = lost or time.monotonic()
            if not over.is_set() and time.monotonic() - lost > LEAVING:
                leave(f"process {index}: the coordinator, process 0, cannot be reached any more")


class Judge:
    """Process 0's view of the others."""

    def __init__(self) -> None:
        self.heard: dict[int, tuple[str, float]] = {}  # last sign of life, and when it was new
        self.failing: float | None = None

    def verdict(self, connection: Any) -> tuple[str, int, set[int]] | None:
        """(line, exit code, processes that cannot hear it) once it is clear why the run cannot go on."""
        import jax

        now = time.monotonic()
        signs = {number(name): text for name, text in connection.key_value_dir_get("elf/alive/")}
        for process in range(jax.process_count()):
            sign = signs.get(process, "")
            if process not in self.heard or self.heard[process][0] != sign:
                self.heard[process] = sign, now
        silence = {process: now - since for process, (_, since) in self.heard.items()}
        failed = {number(name): json.loads(text) for name, text in connection.key_value_dir_get("elf/failed/")}
        if failed and self.failing is None:
            self.failing = now
        waited = now - self.failing if self.failing is not None else 0.0
        limit = SILENT_BROKEN if failed else SILENT
        silent = {process for process, seconds in silence.items() if seconds > limit}
        causes = {process: reason for process, reason in failed.items() if not BROKEN.search(reason[0])}
        if failed and not causes and waited > SILENT:
            causes = failed
        if causes and waited > GRACE:
            process = min(causes)
            text, code = causes[process]
            return (f"process {process}: {text}" if process else text), code, silent
        if silent - failed.keys():
            process = min(silent - failed.keys())
            text = f"process {process}: gone without a word {silence[process]:.0f} s ago (killed, or its host is down)"
            return f"{text}; a training run goes on with `elf resume`", 1, silent
        return None


def number(name: str) -> int:
    return int(name.rsplit("/", 1)[1])


def _end_all(connection: Any, text: str, code: int, silent: set[int]) -> NoReturn:
    """Tells the others to leave, waits until they did, and leaves: the coordinator goes last."""
    import jax

    connection.key_value_set("elf/verdict/0", str(code))
    expected = set(range(1, jax.process_count())) - silent
    deadline = time.monotonic() + LEAVING
    while time.monotonic() < deadline:
        if expected <= {number(name) for name, _ in connection.key_value_dir_get("elf/left/")}:
            break
        time.sleep(0.1)
    time.sleep(0.2)  # what wrote its name is about to leave
    leave(text, code)
