"""Lines that are drawn again and again at the bottom of a terminal."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

SPARE, MAX_WIDTH = 3, 100
"""Columns left free at the right, so that what is typed (^C) makes no new line; and the most that are used."""


class Lines:
    """`lines(width)` as something that rich draws."""

    def __init__(self, console: Console, lines: Callable[[int], list[str]]):
        self.console, self.lines = console, lines

    def now(self) -> list[str]:
        width = max(min(self.console.width - SPARE, MAX_WIDTH), 20)
        return [line if len(line) <= width else line[: width - 1] + "…" for line in self.lines(width)]

    def __rich__(self) -> Text:
        return Text("\n".join(self.now()), no_wrap=True, overflow="crop")


class View(Live):
    """Rich's live display, which also clears the lines that a narrowed terminal has broken into two."""

    def __init__(self, console: Console, lines: Callable[[int], list[str]], transient: bool = False):
        self.drawn = Lines(console, lines)
        self.before: tuple[int, list[int]] = (0, [])  # width of the terminal, lengths of the lines on it
        super().__init__(self.drawn, console=console, refresh_per_second=2, transient=transient)

    def process_renderables(self, renderables: list) -> list:
        (before, lengths), width = self.before, self.console.width
        if lengths and width < before and self._live_render._shape is not None:
            self._live_render._shape = (width, sum(max(-(-length // width), 1) for length in lengths))
        found: Any = super().process_renderables(renderables)
        self.before = width, [len(line) for line in self.drawn.now()]
        return found


def bar(share: float, width: int) -> str:
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "━" * filled + "─" * (width - filled)
