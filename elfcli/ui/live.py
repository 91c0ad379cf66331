"""A run in training on a terminal: one view of where it is, how it goes, and what it writes.

Elsewhere (a file, SLURM, a notebook) `running` gives the plain lines of `progress`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from elfcli.ui.progress import clock, console, format_number, is_first_process, on_terminal, progress, say
from elfcli.ui.spark import spark
from elfcli.ui.view import View, bar


class Run:
    """What the view shows. done: finished steps; `began` is the time of the first one known, after compilation."""

    def __init__(self, what: str, total: int, start: int, epoch_steps: float, history: Sequence[dict]):
        self.what, self.total, self.start, self.epoch_steps = what, total, start, epoch_steps
        self.rows = [row for row in history if "loss" in row]
        self.held_out = [row for row in history if "val_denoise_loss" in row]
        self.done, self.first, self.opened = start, start, time.monotonic()
        self.began: float | None = None
        self.saved: tuple[int, float] | None = None
        self.news: dict[str, Any] = {}

    def update(self, done: int, detail: str = "", **news: Any) -> None:
        """news: row and held_out (figures of metrics.jsonl), saved (a step), sample (a text), waiting (share of the
        time), memory (bytes)."""
        if self.began is None and done > self.start:
            self.began, self.first = time.monotonic(), done
        self.done = done
        if news.get("row"):
            self.rows.append(news.pop("row"))
        if news.get("held_out"):
            self.held_out.append(news.pop("held_out"))
        if news.get("saved"):
            self.saved = news.pop("saved"), time.monotonic()
        self.news |= {name: value for name, value in news.items() if value is not None}

    def left(self) -> float | None:
        if self.began is None or self.done <= self.first:
            return None
        return (time.monotonic() - self.began) / (self.done - self.first) * (self.total - self.done)

    def lines(self, width: int) -> list[str]:
        """The view for a terminal of so many columns; longer lines are cut."""
        now, remaining, row = time.monotonic(), self.left(), self.rows[-1] if self.rows else {}
        share = self.done / max(self.total, 1)
        times = f"{clock(now - self.opened)} gone, {'-' if remaining is None else clock(remaining)} left"
        head = f"{self.what}  step {self.done:,} of {self.total:,}, epoch {self.done / self.epoch_steps:.2f}"
        room = width - len(head) - len(times) - 9
        if room >= 8:
            lines = [f"{head}  {bar(share, min(room, 32))} {share:4.0%}  {times}"]
        else:
            lines = [f"{head}  {bar(share, 16)} {share:.0%}", times]
        for title, name in (("loss", "loss"), ("  denoise", "denoise_loss"), ("  decode", "decode_loss")):
            lines.append(curve(title, self.rows, name, width))
        if self.held_out:
            lines.append(curve("held-out denoise", self.held_out, "val_denoise_loss", width))
            lines.append(curve("held-out decode", self.held_out, "val_decode_loss", width))
        speed = row.get("tokens_per_second")
        rate, norm = format_number(row.get("learning_rate")), format_number(row.get("grad_norm"))
        speed_text = f"{speed:,.0f} tokens/s" if speed else "- tokens/s"
        figures = [f"learning rate {rate}", f"gradient norm {norm}", speed_text]
        more = [f"waiting for data {self.news['waiting']:.0%}"] if "waiting" in self.news else []
        more += [f"memory {self.news['memory'] / 1e9:.1f} GB"] if "memory" in self.news else []
        if self.saved:
            more.append(f"saved step {self.saved[0]:,}, {clock(now - self.saved[1])} ago")
        lines += [", ".join(figures), *([", ".join(more)] if more else [])]
        if "sample" in self.news:
            lines.append(f"last sample: {self.news['sample']}")
        return lines


def curve(title: str, rows: Sequence[dict], name: str, width: int) -> str:
    values = [row.get(name) for row in rows]
    return (
        f"{title:<18}{format_number(values[-1] if values else None):>8}  {spark(values, min(width - 30, 48))}".rstrip()
    )


@contextmanager
def running(
    what: str, total: int, start: int, epoch_steps: float, history: Sequence[dict]
) -> Iterator[Callable[..., None]]:
    """Yields `update(done, detail, **news)`, as of `Run`; afterwards the last view stays, and how long it took."""
    if not (on_terminal() and is_first_process()):
        last = start
        with progress(what, total, start) as plain:

            def update(done: int, detail: str = "", **news: Any) -> None:
                nonlocal last
                if done > last or detail:  # news alone is no line
                    plain(done, detail)
                last = done

            yield update
        return
    run = Run(what, total, start, epoch_steps, history)
    try:
        with View(console, run.lines):
            yield run.update
    finally:
        say(f"{what}: steps {start:,} to {run.done:,} of {total:,} in {clock(time.monotonic() - run.opened)}")
