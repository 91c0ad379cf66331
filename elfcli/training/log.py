"""The log of a run: writes a line of metrics.jsonl per logged step, and sends the same figures to the tracker."""

import time
from collections import deque
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import median

import jax

from elfcli.config.schema import Config
from elfcli.evaluation.online import FAILED
from elfcli.runs import folder as run
from elfcli.training.trackers import open_tracker
from elfcli.ui.progress import is_first_process, number, say

SPIKE_LINES, SPIKE_FROM, SPIKE_FACTOR = 20, 10, 8.0
"""Number of last lines that a loss is compared with, the fewest needed, and the multiple of their spread that is a
spike."""


class Log:
    """Logs means over the steps since the last line. done: steps done, counted by the loop."""

    def __init__(self, config: Config, epoch_steps: float, folder: Path, schedule, start: int):
        self.config, self.epoch_steps, self.folder, self.schedule = config, epoch_steps, folder, schedule
        self.track = open_tracker(config, folder)
        self.done = self.last = start
        self.clock = time.monotonic()
        # Read from the file, so that a resumed run marks the same spikes as one that was never stopped.
        self.history = run.read_metrics(folder) if is_first_process() else []
        self.losses = deque((row["loss"] for row in self.history if "loss" in row), SPIKE_LINES)

    def write(self, totals) -> str:
        """Writes a line and returns it as text for the terminal.

        `skipped`: steps since the last line whose loss or gradients were not finite. `spike`: true, and present only,
        where the loss is far above that of the lines before.
        """
        totals = jax.device_get(totals)
        skipped = totals.pop("skipped")
        means = {name: float(total) / float(count) if count else None for name, (total, count) in totals.items()}
        now, steps = time.monotonic(), self.done - self.last
        config = self.config
        tokens = steps * config.optimization.grad_accum_steps * config.global_batch * config.data.max_length
        row = {
            "step": self.done,
            "epoch": self.done / self.epoch_steps,
            **means,
            "skipped": int(skipped[0]),
            "learning_rate": float(self.schedule(self.done - 1)),
            "tokens_per_second": tokens / (now - self.clock),
        }
        self.clock, self.last = now, self.done
        usual = usual_loss(self.losses)
        if usual is not None and row["loss"] is not None and row["loss"] > usual:
            row["spike"] = True
            say(f"warning: step {self.done}: the loss jumped to {number(row['loss'])}, it was below {number(usual)}")
        self.losses.append(row["loss"])
        if is_first_process():
            self.history.append(row)
            run.append_metrics(self.folder, row)
            # Trackers have the step as their axis; trackio would rename a figure of that name.
            self.track(self.done, {key: value for key, value in row.items() if value is not None and key != "step"})
        loss, denoise, decode = (number(row[name]) for name in ("loss", "denoise_loss", "decode_loss"))
        rate, speed = number(row["learning_rate"]), row["tokens_per_second"]
        return f"loss {loss} (denoise {denoise}, decode {decode}) lr {rate} {speed:,.0f} tokens/s"

    def evaluation(self, figures: dict[str, float]) -> None:
        """Sends the figures of an evaluation to the tracker; metrics.jsonl gets those on held-out text (`val_...`), and
        that an evaluation failed."""
        if not figures:
            return
        kept = {name: value for name, value in figures.items() if name == FAILED or name.startswith("val_")}
        if is_first_process() and kept:
            run.append_metrics(self.folder, {"step": self.done} | kept)
        if "val_denoise_loss" in kept:
            say(f"step {self.done}, held-out text: denoise error {number(kept['val_denoise_loss'])}, decode loss "
                f"{number(kept['val_decode_loss'])}, {kept['val_token_accuracy']:.1%} of noised and "
                f"{kept['val_clean_token_accuracy']:.1%} of clean latents read right")  # fmt: skip
        self.track(self.done, figures)


def usual_loss(losses: Sequence[float | None]) -> float | None:
    """The largest next loss that is no spike: the median of these plus SPIKE_FACTOR times their spread.

    The spread is the median absolute deviation, at least a hundredth of the median. Losses that are not finite are
    ignored; None where too few are finite.
    """
    known = [loss for loss in losses if loss is not None and isfinite(loss)]
    if len(known) < SPIKE_FROM:
        return None
    middle = median(known)
    spread = median(abs(loss - middle) for loss in known)
    return middle + SPIKE_FACTOR * max(spread, abs(middle) / 100)
