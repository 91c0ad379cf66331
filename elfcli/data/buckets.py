"""Length bucketing: batches of similar-length examples are padded to a bucket length below max_length.

A bucket reveals to the network how long its texts may be, which the network must decide itself when it samples. So the
last part of a run uses max_length only. The order of batches is a pure function of (seed, step).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from elfcli.data.batches import TokenTable, batch_indices

FULL_LENGTH_SHARE = 0.25  # share of a run, at its end, with batches of max_length
MAX_BUCKETS = 2  # in addition to max_length; the step is compiled once for each
MAX_POSITIONS = 0.9  # buckets are used if they need at most this share of the positions of max_length alone


@dataclass(frozen=True)
class Buckets:
    """The buckets of a run. lengths: increasing, max_length last. rows: the examples that fit no shorter bucket."""

    lengths: tuple[int, ...]
    rows: tuple[np.ndarray, ...]
    batch_size: int

    @property
    def batches(self) -> np.ndarray:
        """Return the number of whole batches of each bucket in one pass over the data."""
        return np.array([len(rows) // self.batch_size for rows in self.rows])

    def shares(self) -> np.ndarray:
        """Return each bucket's share of the bucketed steps."""
        return self.batches / self.batches.sum()

    def batch(self, step: int, seed: int) -> tuple[int, np.ndarray]:
        """Return (bucket length, rows (batch_size,)) of a 0-based step. No example occurs twice in one pass."""
        ends = np.cumsum(self.batches)
        passes, number = step // ends[-1], int(batch_indices(step, num_examples=ends[-1], batch_size=1, seed=seed)[0])
        bucket = int(np.searchsorted(ends, number, side="right"))
        rows, count = self.rows[bucket], self.batches[bucket]
        within = int(passes * count + number - (ends[bucket] - count))
        picked = batch_indices(within, num_examples=len(rows), batch_size=self.batch_size, seed=seed + 1)
        return self.lengths[bucket], rows[picked]


def positions_needed(tokens: TokenTable, max_length: int, max_input_length: int, extra: int = 0) -> np.ndarray:
    """Return the positions (int64) for condition, text and end token of each example, at most max_length.

    extra: positions that each example needs besides.
    """
    text, condition = tokens.input_ids.lengths(), tokens.condition_input_ids
    source = 0 if condition is None else np.minimum(condition.lengths(), max_input_length)
    return np.minimum(source + text + 1 + extra, max_length)


def fitting_buckets(needed: np.ndarray, max_length: int) -> tuple[int, ...]:
    """Return the bucket lengths, multiples of 8, that minimize the total positions; () if they save little.

    needed: the result of `positions_needed`.
    """
    lengths = np.arange(8, max_length, 8)
    lengths = lengths[:: max(len(lengths) // 64, 1)]
    fit = np.searchsorted(np.sort(needed), [*lengths, max_length], side="right") / len(needed)

    def positions(chosen: Sequence[int]) -> float:
        shares = np.diff([0.0, *fit[list(chosen)], 1.0])
        return float(shares @ [*lengths[list(chosen)], max_length])

    best = min(combinations(range(len(lengths)), min(MAX_BUCKETS, len(lengths))), key=positions)
    return tuple(map(int, lengths[list(best)])) if positions(best) <= MAX_POSITIONS * max_length else ()


def make_buckets(needed: np.ndarray, lengths: Sequence[int], max_length: int, batch_size: int) -> Buckets | None:
    """Return the buckets of a run, or None if it has none.

    If the examples of a bucket do not fill a batch, they move to the next bucket.
    """
    lengths = sorted({length for length in lengths if length < max_length})
    remaining = np.arange(len(needed))
    buckets: dict[int, np.ndarray] = {}
    for length in (*lengths, max_length):
        rows = remaining[needed[remaining] <= length]
        if len(rows) >= batch_size:
            buckets[length] = rows
            remaining = remaining[needed[remaining] > length]
    return Buckets(tuple(buckets), tuple(buckets.values()), batch_size) if lengths and buckets else None
