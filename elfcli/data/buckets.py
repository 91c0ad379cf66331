"""Buckets: lengths of batches, shorter than max_length, of examples that fit them, so that less is padding.

From a bucket a network can tell how long the text in it may be, which it has to decide itself when it samples. So the
end of a run has batches of max_length alone. The order of batches is a pure function of (seed, step).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from elfcli.data.batches import TokenTable, batch_indices

FULL_LENGTH_SHARE = 0.25  # of a run, at its end, in batches of max_length
MAX_BUCKETS = 2  # beside max_length; for each the step is compiled once more
MAX_POSITIONS = 0.9  # share of those of max_length alone at which buckets are worth it


@dataclass(frozen=True)
class Buckets:
    """lengths: of the buckets, increasing, max_length the last. rows: the examples of each, which fit no shorter one.
    batch_size: examples of a step."""

    lengths: tuple[int, ...]
    rows: tuple[np.ndarray, ...]
    batch_size: int

    @property
    def batches(self) -> np.ndarray:
        """Whole batches of each bucket in one pass over the data."""
        return np.array([len(rows) // self.batch_size for rows in self.rows])

    def shares(self) -> np.ndarray:
        """The part of the bucketed steps that each bucket has."""
        return self.batches / self.batches.sum()

    def batch(self, step: int, seed: int) -> tuple[int, np.ndarray]:
        """(bucket, rows (batch_size,)) of a step, 0-based; in one pass no example comes twice."""
        ends = np.cumsum(self.batches)
        passes, number = step // ends[-1], int(batch_indices(step, num_examples=ends[-1], batch_size=1, seed=seed)[0])
        bucket = int(np.searchsorted(ends, number, side="right"))
        rows, count = self.rows[bucket], self.batches[bucket]
        within = int(passes * count + number - (ends[bucket] - count))
        picked = batch_indices(within, num_examples=len(rows), batch_size=self.batch_size, seed=seed + 1)
        return self.lengths[bucket], rows[picked]


def positions_needed(tokens: TokenTable, max_length: int, max_input_length: int) -> np.ndarray:
    """Positions that each example needs: condition, text and the token that ends it; at most max_length. int64."""
    text, condition = tokens.input_ids.lengths(), tokens.condition_input_ids
    source = 0 if condition is None else np.minimum(condition.lengths(), max_input_length)
    return np.minimum(source + text + 1, max_length)


def fitting_buckets(needed: np.ndarray, max_length: int) -> tuple[int, ...]:
    """The buckets, multiples of 8, with which the examples have the fewest positions; () where they save little.

    needed: by `rooms`.
    """
    lengths = np.arange(8, max_length, 8)
    lengths = lengths[:: max(len(lengths) // 64, 1)]
    fit = np.searchsorted(np.sort(needed), [*lengths, max_length], side="right") / len(needed)

    def positions(chosen: Sequence[int]) -> float:
        shares = np.diff([0.0, *fit[list(chosen)], 1.0])
        return float(shares @ [*lengths[list(chosen)], max_length])

    found = min(combinations(range(len(lengths)), min(MAX_BUCKETS, len(lengths))), key=positions)
    return tuple(map(int, lengths[list(found)])) if positions(found) <= MAX_POSITIONS * max_length else ()


def make_buckets(needed: np.ndarray, lengths: Sequence[int], max_length: int, batch_size: int) -> Buckets | None:
    """The buckets of a run; None where it has none. Examples that make no batch of their bucket go to the next one."""
    lengths, left = sorted({length for length in lengths if length < max_length}), np.arange(len(needed))
    found: list[tuple[int, np.ndarray]] = []
    for length in (*lengths, max_length):
        rows = left[needed[left] <= length]
        if len(rows) >= batch_size:
            found.append((length, rows))
            left = left[needed[left] > length]
    if not lengths or not found:
        return None
    return Buckets(tuple(length for length, _ in found), tuple(rows for _, rows in found), batch_size)
