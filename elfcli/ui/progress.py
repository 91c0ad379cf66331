"""Progress of a command on stderr: a live bar on a terminal, plain lines elsewhere; process 0 only.

Within `logged`, which the Python functions use, all of it goes to the logger `elf` instead.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console

from elfcli.ui.view import View, bar

console = Console(stderr=True, highlight=False, soft_wrap=True)
logger = logging.getLogger("elf")
WARNING = "warning: "
_to_logger = False  # not a context variable: other threads report, too


def say(text: str) -> None:
    """One line on stderr, from process 0 only."""
    if not is_first_process():
        return
    if not _to_logger:
        console.print(text, markup=False)
    elif text.startswith(WARNING):
        logger.warning(text.removeprefix(WARNING))
    else:
        logger.info(text)


@contextmanager
def logged():
    """Within it, what `say` and `progress` print goes to the logger: warnings as such, all else as information."""
    global _to_logger
    before, _to_logger = _to_logger, True
    try:
        yield
    finally:
        _to_logger = before


def on_terminal() -> bool:
    """Whether a live display can be shown."""
    return console.is_terminal and not _to_logger


def is_first_process() -> bool:
    jax = sys.modules.get("jax")  # several processes are joined by JAX
    return jax is None or jax.process_index() == 0


def format_number(value) -> str:
    return "-" if value is None else f"{value:.3g}"


@contextmanager
def progress(what: str, total: int, done: int = 0, every_seconds: float = 10.0):
    """Yields `update(done, detail)`: a bar on a terminal, elsewhere a line every `every_seconds`."""
    if not is_first_process():
        yield lambda done, detail="": None
    elif on_terminal():
        shown = _Bar(what, total, done)
        with View(console, shown.lines, transient=True):
            yield shown.update
    else:
        yield _PlainProgress(what, total, done, every_seconds)


class _Left:
    """The time that is left, by the last updates alone: compilations on the way are soon forgotten."""

    def __init__(self, total: int):
        self.total, self.seen = total, deque[tuple[float, int]](maxlen=64)

    def update(self, done: int) -> None:
        self.seen.append((time.monotonic(), done))

    def __str__(self) -> str:
        if not self.seen:
            return "-"
        (start, first), done = self.seen[0], self.seen[-1][1]
        if done == first < self.total:  # the time before the first update is compilation
            return "-"
        return clock((time.monotonic() - start) / max(done - first, 1) * (self.total - done))


class _Bar:
    """One line: `what ━━━━──── 120/1000, 0:15 gone, 2:10 left  detail`."""

    def __init__(self, what: str, total: int, done: int):
        self.what, self.total, self.done, self.detail = what, total, done, ""
        self.opened, self.left = time.monotonic(), _Left(total)

    def update(self, done: int, detail: str = "") -> None:
        self.left.update(done)
        self.done, self.detail = done, detail or self.detail

    def lines(self, width: int) -> list[str]:
        times = f"{clock(time.monotonic() - self.opened)} gone, {self.left} left"
        share = bar(self.done / max(self.total, 1), 16)
        return [f"{self.what} {share} {self.done}/{self.total}, {times}  {self.detail}".rstrip()]


class _PlainProgress:
    """Prints `what 120/1000, 2:10 left  detail`, and always the last step."""

    def __init__(self, what: str, total: int, done: int, every_seconds: float):
        self.what, self.total, self.every, self.left = what, total, every_seconds, _Left(total)
        self.last, self.detail = 0.0, ""

    def __call__(self, done: int, detail: str = "") -> None:
        now = time.monotonic()
        self.left.update(done)
        self.detail, self.last = detail or self.detail, self.last or now
        if done < self.total and (now - self.last < self.every or str(self.left) == "-"):
            return
        say(f"{self.what} {done}/{self.total}, {self.left} left  {self.detail}".rstrip())
        self.last, self.detail = now, ""


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def stages() -> Iterator[Callable[[str, int, int, int], None]]:
    """`report(stage, done, total, documents)`: a line for each stage, then how many per cent of it are done."""

    with ExitStack() as current:
        updates: dict[str, Callable[..., None]] = {}
        reached: dict[str, int] = {}

        def report(stage: str, done: int, total: int, documents: int) -> None:
            if stage not in updates:
                current.close()
                say(stage)
                updates[stage] = current.enter_context(progress("per cent", 100))
            percent = 100 * done // max(total, 1)
            if percent > reached.get(stage, -1):
                updates[stage](percent, f"{documents:,} documents")
            reached[stage] = percent

        yield report
