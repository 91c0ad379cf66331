"""The live view of a training run on a terminal: position, losses, speed, last sample. If stderr is not a terminal (a
file, SLURM, a notebook), `running` prints the plain lines of `progress` instead."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import isfinite
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.text import Text

from elfcli.ui.progress import clock, console, format_number, is_first_process, on_terminal, progress, say, terminal_bar

SPARE, MAX_WIDTH = 3, 100
"""Columns left free at the right, so that typed characters (^C) do not wrap, and the most columns used."""
BLOCKS = "▁▂▃▄▅▆▇█"


class Run:
    """State of the view. `start` and `total` are steps, `history` the rows of metrics.jsonl so far."""

    def __init__(self, what: str, total: int, start: int, epoch_steps: float, history: Sequence[dict]):
        self.epoch_steps, self.done, self.opened = epoch_steps, start, time.monotonic()
        self.rows = [row for row in history if "loss" in row]
        self.held_out = [row for row in history if "val_denoise_loss" in row]
        self.saved: tuple[int, float] | None = None
        self.news: dict[str, Any] = {}
        self.bar = terminal_bar()
        self.task = self.bar.add_task(what, total=total, completed=start, detail="")

    def update(self, done: int, detail: str = "", **news: Any) -> None:
        """Record finished steps and news: row and held_out (rows of metrics.jsonl), saved (a step), sample (a text),
        waiting (share of the time), memory (bytes)."""
        self.done = done
        self.bar.update(self.task, completed=done)
        for name, rows in (("row", self.rows), ("held_out", self.held_out)):
            if news.get(name):
                rows.append(news.pop(name))
        if news.get("saved"):
            self.saved = news.pop("saved"), time.monotonic()
        self.news |= {name: value for name, value in news.items() if value is not None}

    def lines(self, width: int) -> list[str]:
        """Return the lines below the bar, with curves for a terminal of `width` columns."""
        row = self.rows[-1] if self.rows else {}
        curves = (("loss", "loss"), ("  denoise", "denoise_loss"), ("  decode", "decode_loss"))
        lines = [curve(title, self.rows, name, width) for title, name in curves]
        for branch in ("denoise", "decode") if self.held_out else ():
            lines.append(curve(f"held-out {branch}", self.held_out, f"val_{branch}_loss", width))
        rate, norm = format_number(row.get("learning_rate")), format_number(row.get("grad_norm"))
        speed = f"{row['tokens_per_second']:,.0f}" if row.get("tokens_per_second") else "-"
        epoch = self.done / self.epoch_steps
        lines.append(f"epoch {epoch:.2f}, learning rate {rate}, gradient norm {norm}, {speed} tokens/s")
        more = [f"waiting for data {self.news['waiting']:.0%}"] if "waiting" in self.news else []
        more += [f"memory {self.news['memory'] / 1e9:.1f} GB"] if "memory" in self.news else []
        if self.saved:
            more.append(f"saved step {self.saved[0]:,}, {clock(time.monotonic() - self.saved[1])} ago")
        lines += [", ".join(more)] if more else []
        return [*lines, f"last sample: {self.news['sample']}"] if "sample" in self.news else lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(min(options.max_width - SPARE, MAX_WIDTH), 1)
        text = Text("\n".join(self.lines(width)), no_wrap=True, overflow="ellipsis")
        yield Constrain(Group(self.bar, text), width)


def curve(title: str, rows: Sequence[dict], name: str, width: int) -> str:
    """Return a line with the title, the newest value and the curve of all values."""
    values = [row.get(name) for row in rows]
    newest = format_number(values[-1] if values else None)
    return f"{title:<18}{newest:>8}  {spark(values, min(width - 30, 48))}".rstrip()


def spark(values: Sequence[float | None], width: int) -> str:
    """Return a curve of at most `width` characters: means of equal parts, scaled from the lowest to the highest."""
    known = [float(value) for value in values if value is not None and isfinite(value)]
    if len(known) < 2 or width < 1:
        return ""
    count = min(width, len(known))
    edges = [i * len(known) // count for i in range(count + 1)]
    means = [sum(known[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return BLOCKS[0] * count
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] for mean in means)


@contextmanager
def running(
    what: str, total: int, start: int, epoch_steps: float, history: Sequence[dict]
) -> Iterator[Callable[..., None]]:
    """Yield `update(done, detail, **news)` with the news of `Run.update`. On a terminal the last view stays when the
    block ends, followed by a line with the elapsed time."""
    if not (on_terminal() and is_first_process()):
        last = start
        with progress(what, total, start) as plain:

            def update(done: int, detail: str = "", **news: Any) -> None:
                nonlocal last
                if done > last or detail:  # news alone is not worth a line
                    plain(done, detail)
                last = done

            yield update
        return
    run = Run(what, total, start, epoch_steps, history)
    try:
        with Live(run, console=console, refresh_per_second=2):
            yield run.update
    finally:
        say(f"{what}: steps {start:,} to {run.done:,} of {total:,} in {clock(time.monotonic() - run.opened)}")
