"""Ends all processes when one fails or dies, because their collectives would wait for it forever.

A watcher thread in every process writes a heartbeat to the coordinator's key-value store. The watcher of process 0 also
reads the errors that failing processes report and finds processes whose heartbeat has stopped. It then prints one line
and makes the others exit.
"""

import itertools
import json
import re
import threading
import time
from typing import Any, NoReturn

from elfcli.parallel.agree import barrier, by_process, client, leave, this_process

PERIOD = 1.0  # seconds between heartbeats
GRACE = 1.5  # wait after the first error: another process may report its cause
SILENT = 40.0  # without a heartbeat: the process counts as dead
SILENT_BROKEN = 12.0  # the same once another process has reported an error
LEAVING = 10.0  # time for the others to exit
BROKEN = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|coordination|barrier|unavailable|aborted|"
    r"deadline.exceeded|heartbeat|peer",
    re.I,
)  # in the error of a process that fails because another one did

_over: threading.Event | None = None


def start() -> None:
    """Start the watcher thread, once this process is connected with the others."""
    global _over
    _over = threading.Event()
    threading.Thread(target=_watch, args=(_over,), name="watch", daemon=True).start()


def watching() -> bool:
    """Return whether the watcher thread runs."""
    return _over is not None


def fail(text: str, code: int) -> NoReturn:
    """Report this process's error to process 0, and wait for the watcher thread to end this process."""
    index = this_process()
    try:
        client().key_value_set(f"elf/failed/{index}", json.dumps([text, code]), allow_overwrite=True)
        time.sleep(SILENT + LEAVING)
    except (RuntimeError, ValueError):  # the coordinator is gone
        pass
    leave(f"process {index}: {text}", code)


def finish() -> None:
    """Wait until all processes are done, and disconnect."""
    global _over
    import jax

    barrier()
    if _over is not None:
        _over.set()
        _over = None
    jax.distributed.shutdown()


def _watch(over: threading.Event) -> None:
    connection, index, beats = client(), this_process(), itertools.count()
    detector = FailureDetector()
    lost: float | None = None
    while not over.wait(PERIOD):
        try:
            connection.key_value_set(f"elf/alive/{index}", str(next(beats)), allow_overwrite=True)
            if index == 0:
                if (verdict := detector.verdict(connection)) is not None:
                    _end_all(connection, *verdict)
            else:
                for _, code in connection.key_value_dir_get("elf/verdict/"):
                    connection.key_value_set(f"elf/exited/{index}", "")
                    leave("", int(code))
            lost = None
        except (RuntimeError, ValueError):
            lost = lost or time.monotonic()
            if not over.is_set() and time.monotonic() - lost > LEAVING:
                leave(f"process {index}: lost the connection to the coordinator, process 0")


class FailureDetector:
    """Heartbeats and errors of all processes, as process 0 sees them; decides whether the run must end, and why."""

    def __init__(self) -> None:
        self.heartbeats: dict[int, tuple[str, float]] = {}  # last heartbeat, and when it changed
        self.failing: float | None = None

    def verdict(self, connection: Any) -> tuple[str, int, set[int]] | None:
        """Return (line to print, exit code, dead processes), or None as long as the run can continue."""
        import jax

        now = time.monotonic()
        beats = by_process(connection, "elf/alive/")
        for process in range(jax.process_count()):
            beat = beats.get(process, "")
            if process not in self.heartbeats or self.heartbeats[process][0] != beat:
                self.heartbeats[process] = beat, now
        silence = {process: now - since for process, (_, since) in self.heartbeats.items()}
        failed = {process: json.loads(text) for process, text in by_process(connection, "elf/failed/").items()}
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
            text = (f"process {process} stopped responding {silence[process]:.0f} s ago (it was killed or its host is "
                    "down); `elf resume` continues a training run")  # fmt: skip
            return text, 1, silent
        return None


def _end_all(connection: Any, text: str, code: int, silent: set[int]) -> NoReturn:
    """Make the others exit, wait until they have, and exit last, because this process is the coordinator."""
    import jax

    connection.key_value_set("elf/verdict/0", str(code))
    expected = set(range(1, jax.process_count())) - silent
    deadline = time.monotonic() + LEAVING
    while time.monotonic() < deadline and not expected <= by_process(connection, "elf/exited/").keys():
        time.sleep(0.1)
    time.sleep(0.2)  # a process writes its name just before it exits
    leave(text, code)
