"""The log of a run: a line of metrics.jsonl per logged step, and the same figures for the tracker."""

import time
from collections import deque
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elfcli.config.schema import Config
from elfcli.errors import ElfError
from elfcli.evaluation.online import FAILED
from elfcli.models.elf import num_params
from elfcli.parallel.memory import used_memory
from elfcli.runs import folder as run
from elfcli.runs.state import TrainState
from elfcli.training.inputs import RunInputs, batch_rows
from elfcli.training.trackers import open_tracker
from elfcli.ui.progress import format_number, is_first_process, say

SPIKE_LINES, SPIKE_FROM, SPIKE_FACTOR = 20, 10, 8.0
"""Number of recent lines that a loss is compared with, the minimum needed, and the multiple of their spread that counts
as a spike."""


class Log:
    """Logs means over the steps since the last line. rates: learning rate of every step. done: steps done."""

    def __init__(self, config: Config, epoch_steps: float, folder: Path, rates: np.ndarray, start: int):
        self.config, self.epoch_steps, self.folder, self.rates = config, epoch_steps, folder, rates
        self.track = open_tracker(config, folder)
        self.done, self.positions = start, 0
        self.clock = time.monotonic()
        # Read from the file, so that a resumed run reports the same spikes as one that was never stopped.
        self.history = run.read_metrics(folder) if is_first_process() else []
        self.losses = deque((row["loss"] for row in self.history if "loss" in row), SPIKE_LINES)

    def count(self, batch: dict[str, jax.Array]) -> None:
        """Count a step on a batch (A, B, S) that is done or in flight."""
        self.done += 1
        self.positions += batch["input_ids"].size

    def write(self, state: TrainState) -> str:
        """Write a line about the state and its totals, and return it as text for the terminal.

        `skipped`: steps since the last line whose loss or gradients were not finite. `spike`: present, and true, if the
        loss is far above those of the lines before.
        """
        totals = jax.device_get(state.totals)
        skipped = totals.pop("skipped")
        means = {name: float(total) / float(count) if count else None for name, (total, count) in totals.items()}
        now = time.monotonic()
        row = {
            "step": self.done,
            "epoch": self.done / self.epoch_steps,
            **means,
            "skipped": int(skipped[0]),
            "learning_rate": float(self.rates[self.done - 1]),
            "tokens_per_second": self.positions / (now - self.clock),
        }
        self.clock, self.positions = now, 0
        if self.config.training.log_layer_norms:
            row |= {name: float(norm) for name, norm in jax.device_get(layer_norms(state.params, state.ema)).items()}
        usual = usual_loss(self.losses)
        if usual is not None and row["loss"] is not None and row["loss"] > usual:
            row["spike"] = True
            jump = f"{format_number(row['loss'])} from below {format_number(usual)}"
            say(f"warning: step {self.done}: the loss jumped to {jump}")
        self.losses.append(row["loss"])
        if is_first_process():
            self.history.append(row)
            run.append_metrics(self.folder, row)
            # Trackers have the step as their axis; trackio would rename a value of that name.
            self.track(self.done, {key: value for key, value in row.items() if value is not None and key != "step"})
        loss, denoise, decode = (format_number(row[name]) for name in ("loss", "denoise_loss", "decode_loss"))
        rate, speed = format_number(row["learning_rate"]), row["tokens_per_second"]
        return f"loss {loss} (denoise {denoise}, decode {decode}) lr {rate} {speed:,.0f} tokens/s"

    def evaluation(self, figures: dict[str, float]) -> None:
        """Send the figures of an evaluation to the tracker.

        metrics.jsonl gets those on held-out text (`val_...`), and that an evaluation failed.
        """
        if not figures:
            return
        kept = {name: value for name, value in figures.items() if name == FAILED or name.startswith("val_")}
        if is_first_process() and kept:
            run.append_metrics(self.folder, {"step": self.done} | kept)
        if "val_denoise_loss" in kept:
            denoise, decode = (format_number(kept[f"val_{branch}_loss"]) for branch in ("denoise", "decode"))
            noised, clean = (kept[f"val_{kind}token_accuracy"] for kind in ("", "clean_"))
            say(f"step {self.done}, held-out text: denoise error {denoise}, decode loss {decode}, {noised:.1%} of "
                f"noised and {clean:.1%} of clean latents decoded correctly")  # fmt: skip
        self.track(self.done, figures)

    def seen(self, waiting: float) -> dict:
        """Return what the live view shows next to the losses. waiting: share of the time spent waiting for data."""
        return {"row": self.history[-1] if self.history else None, "waiting": waiting, "memory": used_memory()}


@jax.jit
def layer_norms(params: dict, ema: dict) -> dict[str, jax.Array]:
    """Return `weight_norm/LAYER` and `ema_distance/LAYER` (root of the sum of squares) of every layer.

    A layer is an entry of the parameters, or one of the stacked blocks: `blocks_0`, `blocks_1`, ...
    """

    def norms(kind: str, tree: dict) -> dict[str, jax.Array]:
        blocks = jax.tree.leaves(tree["blocks"])
        layers = {f"blocks_{i}": [leaf[i] for leaf in blocks] for i in range(len(blocks[0]))}
        layers |= {name: value for name, value in tree.items() if name != "blocks"}
        return {f"{kind}/{name}": optax.global_norm(value) for name, value in layers.items()}

    return norms("weight_norm", params) | norms("ema_distance", jax.tree.map(jnp.subtract, params, ema))


def usual_loss(losses: Sequence[float | None]) -> float | None:
    """Return the largest next loss that is not a spike: the median of these plus SPIKE_FACTOR times their spread.

    The spread is the median absolute deviation, at least a hundredth of the median. Losses that are not finite are
    ignored. None if fewer than SPIKE_FROM are finite.
    """
    known = [loss for loss in losses if loss is not None and isfinite(loss)]
    if len(known) < SPIKE_FROM:
        return None
    middle = median(known)
    spread = median(abs(loss - middle) for loss in known)
    return middle + SPIKE_FACTOR * max(spread, abs(middle) / 100)


def report_start(state: TrainState, num_examples: int, start: int, total: int) -> None:
    """Print the size of the run and where it starts."""
    say(
        f"{num_params(state.params) / 1e6:.2f}M parameters, {num_examples} examples, "
        f"step {start} of {total}, {jax.device_count()} {jax.default_backend()} device(s)"
    )
    if start >= total:
        say("Training is already complete. To train longer: `elf resume ... --set steps=N`")


def report_best(folder: Path, done: int) -> None:
    """Print which checkpoint is the best, unless it is the last."""
    best = run.best_of(folder)
    if best and best["step"] != done:
        say(f"best {best['figure']} {best['value']:.4g} at step {best['step']}: {folder}@best")


def raise_if_diverged(config: Config, state: TrainState, step: int, saved: int | None, inputs: RunInputs) -> None:
    """Raise ElfError after max_skipped_steps steps in a row whose loss or gradients were not finite."""
    lost = int(state.skipped_in_a_row)
    if lost < config.training.max_skipped_steps:
        return
    micro = (step - 1) * config.optimization.grad_accum_steps
    rows = batch_rows(config, inputs, micro)[1].tolist()
    good = f"the last checkpoint is step {saved}" if saved else "nothing was saved yet"
    raise ElfError(
        f"loss or gradients were not finite for {lost} steps in a row, up to step {step} (its first batch holds the "
        f"examples {rows}); {good}; lower lr, or inspect those examples"
    )
