"""Preemption: SIGTERM, and SIGINT once, ask the run to finish its step, save and leave; a second leaves at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread


@contextmanager
def stop_requests() -> Iterator[Callable[[], str | None]]:
    """Yields `requested()`: the name of the signal that asked to stop, or None. Only the main thread gets signals."""
    received: list[str] = []
    if current_thread() is not main_thread():
        yield lambda: None
        return

    def note(number, frame):
        received.append(signal.Signals(number).name)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
