"""Batches from token rows: random access to rows, the order of examples, collation, reading ahead.

The order is a pure function of (seed, epoch, step). So a resumed run computes its position in the data, and every
process of a multi-host run computes the same order and reads only its own rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from elfcli.errors import InputError

Batch = dict[str, np.ndarray]

MAX_EXAMPLES = 2**31  # limit of grain's 32-bit permutation


@dataclass(frozen=True)
class TokenColumn:
    """Rows of token ids as chunks of flat values and offsets (views of memory-mapped Arrow buffers, not copies).

    Row r of chunk c is `values[c][offsets[c][r] : offsets[c][r + 1]]`. `starts[c]` is the chunk's first row; the last
    entry of `starts` is the number of rows.
    """

    values: tuple[np.ndarray, ...]
    offsets: tuple[np.ndarray, ...]
    starts: np.ndarray

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the token ids of a row, int32 (length,)."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        first = row - int(self.starts[chunk])
        offsets = self.offsets[chunk]
        return self.values[chunk][offsets[first] : offsets[first + 1]].astype(np.int32, copy=False)

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of every row, int64 (rows,)."""
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(offsets) for offsets in self.offsets)])


@dataclass(frozen=True)
class TokenTable:
    """Examples by row: `input_ids`, and `condition_input_ids` if the task is conditional."""

    input_ids: TokenColumn
    condition_input_ids: TokenColumn | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        example = {"input_ids": self.input_ids[row]}
        if self.condition_input_ids is not None:
            example["condition_input_ids"] = self.condition_input_ids[row]
        return example


def rows_between(table: TokenTable, first: int, stop: int) -> TokenTable:
    """Return rows `first` to `stop - 1` without copying tokens."""

    def cut(column: TokenColumn) -> TokenColumn:
        ends = [np.clip([first - start, stop - start], 0, len(offsets) - 1)
                for start, offsets in zip(column.starts, column.offsets, strict=False)]  # fmt: skip
        offsets = tuple(o[a : b + 1] for o, (a, b) in zip(column.offsets, ends, strict=True))
        starts = np.cumsum([0, *(b - a for a, b in ends)], dtype=np.int64)
        return TokenColumn(column.values, offsets, starts)

    condition = table.condition_input_ids
    return TokenTable(cut(table.input_ids), None if condition is None else cut(condition))


def column_from_rows(rows: Sequence[Sequence[int] | np.ndarray]) -> TokenColumn:
    """Return a column of one chunk, in memory."""
    arrays = [np.asarray(row, np.int32) for row in rows]
    offsets = np.cumsum([0, *(len(row) for row in arrays)], dtype=np.int64)
    values = np.concatenate([np.zeros(0, np.int32), *arrays])
    return TokenColumn((values,), (offsets,), np.array([0, len(arrays)], np.int64))


def collate(examples: Sequence[Mapping[str, Any]], *, max_length: int, max_input_length: int, pad_id: int) -> Batch:
    """Join condition and text of each example into one padded row of length S = max_length.

    Return `input_ids` (B, S) int32, `cond_mask` (B, S) bool (True in the condition) and `valid_mask` (B, S) bool
    (True before the padding). An example with gaps has `known` instead of a condition (see `Frame.example`); padding
    in its gaps is not valid.
    """
    input_ids = np.full((len(examples), max_length), pad_id, np.int32)
    lengths = np.zeros((len(examples), 1), np.int64)
    cond_mask = np.zeros((len(examples), max_length), bool)
    for row, example in enumerate(examples):
        condition = example.get("condition_input_ids", ())[: min(max_input_length, max_length)]
        text = example["input_ids"][: max_length - len(condition)]
        end = len(condition) + len(text)
        input_ids[row, : len(condition)] = condition
        input_ids[row, len(condition) : end] = text
        cond_mask[row, : len(condition)], lengths[row] = True, end
        if (known := example.get("known")) is not None:
            cond_mask[row, :end], cond_mask[row, end:] = known[:end], known[-1]
    valid_mask = np.arange(max_length)[None] < lengths
    if any("known" in example for example in examples):
        valid_mask &= cond_mask | (input_ids != pad_id)
    return {"input_ids": input_ids, "cond_mask": cond_mask, "valid_mask": valid_mask}


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of whole batches in one epoch. Raises InputError if there is none."""
    if num_examples < batch_size:
        raise InputError(f"The data has {num_examples} examples, fewer than one batch of {batch_size}: "
                         "lower batch_size or use more data")  # fmt: skip
    return num_examples // batch_size


def batch_indices(step: int, *, num_examples: int, batch_size: int, seed: int) -> np.ndarray:
    """Return the rows of the batch at the 0-based `step` of the whole run, int64 (batch_size,)."""
    from grain.experimental import index_shuffle

    if num_examples > MAX_EXAMPLES:
        raise InputError(f"The data has {num_examples} examples, more than the {MAX_EXAMPLES} that can be shuffled")
    epoch, step_in_epoch = divmod(step, steps_per_epoch(num_examples, batch_size))
    epoch_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    shuffled = partial(index_shuffle, max_index=num_examples - 1, seed=epoch_seed, rounds=4)
    first = step_in_epoch * batch_size
    return np.fromiter(map(shuffled, range(first, first + batch_size)), np.int64, batch_size)


def batches(load: Callable[[int], Batch], steps: range, num_workers: int = 2) -> Iterator[tuple[int, Batch]]:
    """Yield `(step, load(step))` for each step, read ahead by `num_workers` threads (0: in the caller's thread)."""
    if num_workers == 0:
        yield from ((step, load(step)) for step in steps)
        return
    import grain

    reading = grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=4 * num_workers)
    source = grain.MapDataset.range(steps.start, steps.stop)
    yield from source.map(lambda step: (step, load(step))).to_iter_dataset(reading)
