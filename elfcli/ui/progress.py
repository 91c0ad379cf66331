"""Progress of a command on stderr: a live bar on a terminal, plain lines elsewhere; process 0 only."""

import sys
import time
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line on stderr, from process 0 only."""
    if is_first_process():
        console.print(text, markup=False)


def is_first_process() -> bool:
    jax = sys.modules.get("jax")  # several processes are joined by JAX
    return jax is None or jax.process_index() == 0


def number(value) -> str:
    return "-" if value is None else f"{value:.3g}"


@contextmanager
def progress(what: str, total: int, done: int = 0, every_seconds: float = 10.0):
    """Yields `update(done, detail)`: a bar on a terminal, elsewhere a line every `every_seconds`."""
    if not is_first_process():
        yield lambda done, detail="": None
    elif console.is_terminal:
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # a narrow terminal cuts this column
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=8), MofNCompleteColumn(),
                   TimeRemainingColumn(), TextColumn("{task.fields[detail]}", table_column=rest))  # fmt: skip
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            task = bar.add_task(what, total=total, completed=done, detail="")
            yield lambda done, detail="": bar.update(task, completed=done, **({"detail": detail} if detail else {}))
    else:
        yield _PlainProgress(what, total, done, every_seconds)


class _PlainProgress:
    """Prints `what 120/1000, 2:10 left  detail`, and always the last step."""

    def __init__(self, what: str, total: int, done: int, every_seconds: float):
        self.what, self.total, self.first, self.every = what, total, done, every_seconds
        self.start = self.last = time.monotonic()
        self.started, self.detail = False, ""

    def __call__(self, done: int, detail: str = "") -> None:
        now = time.monotonic()
        self.detail = detail or self.detail
        if not self.started:  # the time before the first call is compilation
            self.started, self.start, self.last, self.first = True, now, now, done
        if (now - self.last < self.every and done < self.total) or done == self.first < self.total:
            return
        remaining = (now - self.start) / max(done - self.first, 1) * (self.total - done)
        say(f"{self.what} {done}/{self.total}, {clock(remaining)} left  {self.detail}".rstrip())
        self.last, self.detail = now, ""


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
