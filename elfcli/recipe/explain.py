"""Messages about what the recipe chose."""

import numpy as np

from elfcli.config.resolve import Resolved
from elfcli.data.buckets import FULL_LENGTH_SHARE
from elfcli.data.folder import Examples
from elfcli.data.lengths import fitting_lengths, truncated_counts
from elfcli.recipe.choose import EMA_SHARE, FROM_DATA, lengths_of
from elfcli.runs.length import run_length
from elfcli.ui.progress import format_number, say

MOSTLY_PADDING = 0.4  # share of filled positions under which shorter lengths are proposed


def report_data(resolved: Resolved, examples: Examples) -> None:
    """What was found in the data, and how much of it the lengths cut; where most positions would be padding, lengths
    that train faster."""
    data, lengths = resolved.config.data, lengths_of(examples)
    source = f", max_input_length {data.max_input_length}" if len(lengths) == 2 else ""
    say(f"from the data: {len(examples):,} {'pairs' if len(lengths) == 2 else 'texts'}, max_length {data.max_length}"
        f"{source}; cut are {truncated_shares(lengths, data.max_length, data.max_input_length)}")  # fmt: skip
    if data.buckets:
        lengths_text = ", ".join(map(str, data.buckets))
        say(f"length buckets: batches are padded to {lengths_text} or {data.max_length} positions, in the last "
            f"{FULL_LENGTH_SHARE:.0%} of the run to {data.max_length} only")  # fmt: skip
        return
    filled = np.minimum(sum(lengths.values()), data.max_length).mean() / data.max_length
    short, short_source = fitting_lengths(lengths, percent=90)
    chosen_here = resolved.origins["max_length"].layer == FROM_DATA
    if chosen_here and filled < MOSTLY_PADDING and short <= 0.8 * data.max_length:
        given = f"max_length={short}" + (f" -s max_input_length={short_source}" if source else "")
        say(f"{1 - filled:.0%} of the positions are padding, since a few are long: with -s {given} training sees "
            f"about {data.max_length / short:.1f} times as many in the same time; cut are then "
            f"{truncated_shares(lengths, short, short_source)}")  # fmt: skip


def truncated_shares(lengths: dict[str, np.ndarray], max_length: int, max_input_length: int) -> str:
    """How many of the sources and of the targets or texts these lengths cut, in words."""
    names = {"condition_input_ids": "sources", "input_ids": "targets" if len(lengths) == 2 else "texts"}
    cut = sorted(truncated_counts(lengths, max_length, max_input_length).items())
    return ", ".join(f"{count / len(lengths[name]):.1%} of {names[name]}" for name, count in cut)


def report_settings(resolved: Resolved, num_examples: int) -> None:
    """One line: the length and rates of the run, and a warning where its average would mostly be initial weights."""
    config = resolved.config
    length, decay = run_length(config, num_examples), config.optimization.ema_decay
    peak, horizon = config.peak_lr, 1 / (1 - decay)
    say(f"{length.total_steps:,} steps of {config.global_batch} examples, warm-up {length.warmup_steps}, learning rate "
        f"{format_number(peak)} {config.optimization.lr_schedule}, EMA over {horizon:,.0f} steps")  # fmt: skip
    if decay and horizon > length.total_steps / 5:
        share, better = decay**length.total_steps, 1 - 1 / max(length.total_steps / EMA_SHARE, 1)
        say(f"warning: ema_decay {decay:g} averages over {horizon:,.0f} steps of a run of {length.total_steps:,}: "
            f"{share:.0%} of what is sampled will be initial weights; set ema_decay={better:.4g}")  # fmt: skip
