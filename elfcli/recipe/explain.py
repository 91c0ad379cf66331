"""Prints what the recipe chose."""

import numpy as np

from elfcli.config.resolve import Resolved
from elfcli.config.schema import GAP_KINDS
from elfcli.data.buckets import FULL_LENGTH_SHARE
from elfcli.data.folder import Examples
from elfcli.data.gaps import ROOM
from elfcli.data.lengths import fitting_lengths, truncated_counts
from elfcli.recipe.choose import EMA_SHARE, FROM_DATA, lengths_of
from elfcli.runs.length import run_length
from elfcli.ui.progress import format_number, say

MOSTLY_PADDING = 0.4  # share of filled positions below which shorter lengths are suggested


def report_data(resolved: Resolved, examples: Examples) -> None:
    """Print what the data holds and how much is truncated; suggest shorter lengths if most positions are padding."""
    data, lengths = resolved.config.data, lengths_of(examples)
    paired = len(lengths) == 2
    source = f", max_input_length {data.max_input_length}" if paired else ""
    room = data.max_length - (ROOM if data.gaps else 0)
    say(f"from the data: {len(examples):,} {'pairs' if paired else 'texts'}, max_length {data.max_length}{source}; "
        f"truncated: {truncated_shares(lengths, room, data.max_input_length)}")  # fmt: skip
    if data.gaps:
        shares = ", ".join(f"{share:.0%} {kind}" for share, kind in zip(data.gaps, GAP_KINDS, strict=True))
        after = f", after {data.gaps_after:.0%} of the run" if data.gaps_after else ""
        say(f"gaps, drawn anew for each epoch{after}: {shares}; {ROOM} positions are for padding in them")
    if data.buckets:
        buckets = ", ".join(map(str, data.buckets))
        say(f"length buckets: batches are padded to {buckets} or {data.max_length} positions, in the last "
            f"{FULL_LENGTH_SHARE:.0%} of the run to {data.max_length} only, where losses drop: padding is "
            "easy")  # fmt: skip
        return
    filled = np.minimum(sum(lengths.values()), data.max_length).mean() / data.max_length
    short, short_source = fitting_lengths(lengths, percent=90)
    from_data = resolved.origins["max_length"].layer == FROM_DATA
    if from_data and filled < MOSTLY_PADDING and short <= 0.8 * data.max_length and not data.gaps:
        options = f"max_length={short}" + (f" -s max_input_length={short_source}" if paired else "")
        say(f"{1 - filled:.0%} of the positions are padding, because a few examples are long: with -s {options} "
            f"training sees about {data.max_length / short:.1f} times as many examples in the same time; truncated: "
            f"{truncated_shares(lengths, short, short_source)}")  # fmt: skip


def truncated_shares(lengths: dict[str, np.ndarray], max_length: int, max_input_length: int) -> str:
    """Return the shares of sources and of targets or texts that these lengths truncate, in words."""
    names = {"condition_input_ids": "sources", "input_ids": "targets" if len(lengths) == 2 else "texts"}
    counts = sorted(truncated_counts(lengths, max_length, max_input_length).items())
    return ", ".join(f"{count / len(lengths[name]):.1%} of {names[name]}" for name, count in counts)


def report_settings(resolved: Resolved, num_examples: int) -> None:
    """Print the length and rates of the run, and warn if its moving average would mostly be initial weights."""
    config = resolved.config
    length, decay = run_length(config, num_examples), config.optimization.ema_decay
    horizon = 1 / (1 - decay)
    rate = f"{format_number(config.peak_lr)} {config.optimization.lr_schedule}"
    say(f"{length.total_steps:,} steps of {config.global_batch} examples, warm-up {length.warmup_steps}, learning "
        f"rate {rate}, EMA over {horizon:,.0f} steps")  # fmt: skip
    if decay and horizon > length.total_steps / 5:
        share, better = decay**length.total_steps, 1 - 1 / max(length.total_steps / EMA_SHARE, 1)
        say(f"warning: ema_decay {decay:g} averages over {horizon:,.0f} steps, but the run has {length.total_steps:,}: "
            f"{share:.0%} of the sampled weights will be initial weights; set ema_decay={better:.4g}")  # fmt: skip
