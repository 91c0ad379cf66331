"""Progress of a command on stderr, from process 0 only: a live bar on a terminal, plain lines elsewhere. Within
`logged`, which the Python API uses, everything is sent to the logger `elf` instead."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

console = Console(stderr=True, highlight=False, soft_wrap=True)
logger = logging.getLogger("elf")
WARNING = "warning: "
_to_logger = False  # not a context variable, because other threads report as well


def say(text: str) -> None:
    """Print one line on stderr, from process 0 only."""
    if not is_first_process():
        return
    if not _to_logger:
        console.print(text, markup=False)
    elif text.startswith(WARNING):
        logger.warning(text.removeprefix(WARNING))
    else:
        logger.info(text)


@contextmanager
def logged() -> Iterator[None]:
    """Send what `say` and `progress` print within the block to the logger: warnings as such, the rest as info."""
    global _to_logger
    before, _to_logger = _to_logger, True
    try:
        yield
    finally:
        _to_logger = before


def on_terminal() -> bool:
    """Return whether a live display can be shown."""
    return console.is_terminal and not _to_logger


def is_first_process() -> bool:
    """Return whether this is process 0, without importing JAX (which connects the processes)."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


def format_number(value: float | None) -> str:
    """Return three significant digits, `-` for None."""
    return "-" if value is None else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Return a duration as `2:05` or `1:02:05`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yield `update(done, detail)`: it moves a bar on a terminal, elsewhere it prints a line every ten seconds."""
    if not is_first_process():
        yield lambda done, detail="": None
    elif on_terminal():
        with terminal_bar() as bar:
            task = bar.add_task(what, total=total, completed=done, detail="")
            yield lambda done, detail="": bar.update(task, completed=done, **({"detail": detail} if detail else {}))
    else:
        yield _PlainProgress(what, total, done)


def terminal_bar() -> "Progress":
    """Return rich's progress display with the columns of elf; its tasks have a field `detail`."""
    from rich import progress as bars
    from rich.table import Column

    return bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=16),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("elapsed,"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("left "),
        bars.TextColumn("{task.fields[detail]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        console=console,
        expand=True,  # so that the detail is what a narrow terminal truncates
        refresh_per_second=2,
        speed_estimate_period=600,
        transient=True,
    )


class _PlainProgress:
    """Prints `what 120/1000, 2:10 left  detail` from time to time, and always at the last step."""

    def __init__(self, what: str, total: int, done: int):
        self.what, self.total = what, total
        self.bar = terminal_bar()  # never shown: it estimates the time from updates alone, as compilation precedes them
        self.bar.add_task(what, total=total, completed=done)
        self.task = self.bar.tasks[0]
        self.printed, self.detail = 0.0, ""

    def __call__(self, done: int, detail: str = "") -> None:
        now = time.monotonic()
        self.bar.update(self.task.id, completed=done)
        self.detail, self.printed = detail or self.detail, self.printed or now
        left = self.task.time_remaining
        if done == self.total or (left is not None and now - self.printed >= 10):
            say(f"{self.what} {done}/{self.total}, {clock(left or 0)} left  {self.detail}".rstrip())
            self.printed, self.detail = now, ""


@contextmanager
def stages() -> Iterator[Callable[[str, int, int, int], None]]:
    """Yield `report(stage, done, total, documents)`, which prints a line per stage and then its percentage done."""
    with ExitStack() as current:
        last, shown = "", -1
        update: Callable[..., None]

        def report(stage: str, done: int, total: int, documents: int) -> None:
            nonlocal last, shown, update
            if stage != last:
                current.close()
                say(stage)
                last, shown, update = stage, -1, current.enter_context(progress("per cent", 100))
            if (percent := 100 * done // max(total, 1)) > shown:
                update(shown := percent, f"{documents:,} documents")

        yield report
