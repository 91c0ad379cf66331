"""Steps under way: not more than two, so that progress is true and a stop request is soon met."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax

T = TypeVar("T")


class DispatchLimiter:
    """Keeps at most two steps under way: dispatching is quick, and steps that are queued cannot be stopped."""

    def __init__(self, start: int, last_saved: Callable[[], int | None]):
        self.done, self.last_saved = start, last_saved
        self.seconds, self.clock = 0.0, time.monotonic()
        self.waited, self.since = 0.0, time.monotonic()
        self.under_way: jax.Array | None = None

    def finished(self, step: jax.Array, wait: bool = False) -> int:
        """Steps that are done, after waiting for all but the newest (with `wait` for it too). step: state.step."""
        newest = step + 0  # of its own, since the state is donated to the next step
        waited = newest if wait or self.under_way is None else self.under_way
        number, now = int(waited), time.monotonic()
        if number > self.done:
            self.seconds, self.clock = (now - self.clock) / (number - self.done), now
        self.done, self.under_way = number, newest
        return number

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; how long each one was waited for is added up."""
        stream = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(stream, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def waiting(self) -> float:
        """Share of the time since the last call that went into waiting for data."""
        waited, self.waited, since, self.since = self.waited, 0.0, self.since, time.monotonic()
        return min(waited / max(self.since - since, 1e-9), 1.0)

    def notice(self) -> str:
        """What a stop request is answered with; called in a thread of its own."""
        soon = f"saving after this step, about {2 * self.seconds:.0f} s"
        return f"stopping: {soon}; again to leave without saving, back to step {self.last_saved() or 0}"


def every(minutes: float) -> Callable[[], bool]:
    """A function that says True once in so many minutes; never for 0."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if not minutes or now - last < 60 * minutes:
            return False
        last = now
        return True

    return due
