"""Limits asynchronous dispatch to two steps in flight, so that progress is accurate and stop requests are prompt."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax

T = TypeVar("T")


class DispatchLimiter:
    """Keeps at most two steps in flight: dispatching is quick, and queued steps cannot be stopped."""

    def __init__(self, start: int, last_saved: Callable[[], int | None]):
        self.done, self.last_saved = start, last_saved
        self.step_seconds, self.finished_at = 0.0, time.monotonic()
        self.waited, self.waited_since = 0.0, time.monotonic()
        self.in_flight: jax.Array | None = None

    def finished(self, step: jax.Array, wait: bool = False) -> int:
        """Wait for all steps but the newest (with `wait` for all); return how many are done. step: state.step."""
        newest = step + 0  # a copy, since the state is donated to the next step
        number, now = int(newest if wait or self.in_flight is None else self.in_flight), time.monotonic()
        if number > self.done:
            self.step_seconds, self.finished_at = (now - self.finished_at) / (number - self.done), now
        self.done, self.in_flight = number, newest
        return number

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches and add up how long they were waited for."""
        stream = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(stream, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def waiting(self) -> float:
        """Return the share of the time since the last call that was spent waiting for data."""
        waited, since = self.waited, self.waited_since
        self.waited, self.waited_since = 0.0, time.monotonic()
        return min(waited / max(self.waited_since - since, 1e-9), 1.0)

    def notice(self) -> str:
        """Return the message printed on a stop request; called from the signal thread."""
        last = self.last_saved() or 0
        return (
            f"Stopping: saving after this step (about {2 * self.step_seconds:.0f} s). Press Ctrl-C again to quit "
            f"without saving (last checkpoint: step {last})."
        )


def every(minutes: float) -> Callable[[], bool]:
    """Return a function that returns True once in this many minutes; never for 0."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if not minutes or now - last < 60 * minutes:
            return False
        last = now
        return True

    return due
