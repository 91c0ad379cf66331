"""Collation against a slow obvious version; the order of examples; reading ahead does not change batches."""

import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elfcli.data.batches import TokenColumn, TokenTable, batch_indices, batches, collate, column_from_rows
from elfcli.errors import InputError

ids = st.lists(st.integers(2, 50), max_size=12)
examples = st.lists(
    st.one_of(
        st.fixed_dictionaries({"input_ids": ids}), st.fixed_dictionaries({"input_ids": ids, "condition_input_ids": ids})
    ),
    min_size=1,
    max_size=5,
)


@given(examples, st.integers(1, 16), st.integers(0, 20), st.integers(0, 1))
def test_collate_is_the_obvious_thing(rows, max_length, max_input_length, pad_id):
    batch = collate(rows, max_length=max_length, max_input_length=max_input_length, pad_id=pad_id)
    assert batch["input_ids"].dtype == np.int32
    for name in ("input_ids", "cond_mask", "valid_mask"):
        assert batch[name].shape == (len(rows), max_length)
    for b, row in enumerate(rows):
        condition = list(row.get("condition_input_ids", []))[:max_input_length]
        sequence = condition + list(row["input_ids"])
        for s in range(max_length):
            inside = s < len(sequence)
            assert batch["input_ids"][b, s] == (sequence[s] if inside else pad_id)
            assert batch["valid_mask"][b, s] == inside
            assert batch["cond_mask"][b, s] == (s < len(condition))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**40), st.integers(0, 5))
def test_every_epoch_is_a_part_of_a_permutation(num_examples, batch_size, seed, epoch):
    take = partial(batch_indices, num_examples=num_examples, batch_size=batch_size, seed=seed)
    if num_examples < batch_size:
        with pytest.raises(InputError, match=f"{num_examples} examples"):
            take(0)
        return
    steps = num_examples // batch_size
    rows = np.concatenate([take(epoch * steps + step) for step in range(steps)])
    assert len(rows) == steps * batch_size == len(set(rows.tolist()))
    assert rows.min() >= 0 and rows.max() < num_examples


def test_epochs_and_seeds_differ():
    orders = [
        tuple(batch_indices(step, num_examples=64, batch_size=64, seed=seed)) for step in range(4) for seed in (1, 2)
    ]
    assert len(set(orders)) == len(orders)


def small_table() -> TokenTable:
    rows = [np.arange(n % 7 + 1) + n for n in range(50)]
    return TokenTable(column_from_rows(rows), column_from_rows([row[:2] for row in rows]))


def load_batch(dataset, step, *, batch_size, seed, collate_fn, rows=slice(None)):
    """Return the batch at `step`; rows: the part of it that one process reads."""
    indices = batch_indices(step, num_examples=len(dataset), batch_size=batch_size, seed=seed)[rows]
    return collate_fn([dataset[int(index)] for index in indices])


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_resumed_stream_equals_the_straight_one(num_workers):
    join = partial(collate, max_length=9, max_input_length=3, pad_id=0)
    load = partial(load_batch, small_table(), batch_size=8, seed=3, collate_fn=join)
    straight = list(batches(load, range(20), num_workers=0))
    resumed = list(batches(load, range(7, 20), num_workers=num_workers))
    assert [step for step, _ in resumed] == list(range(7, 20))
    for (_, expected), (_, batch) in zip(straight[7:], resumed, strict=True):
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name])


def test_processes_read_their_parts_of_the_same_batches():
    join = partial(collate, max_length=9, max_input_length=3, pad_id=0)
    load = partial(load_batch, small_table(), batch_size=8, seed=0, collate_fn=join)
    parts = [list(batches(partial(load, rows=rows), range(2, 5))) for rows in (slice(0, 4), slice(4, 8))]
    for (_, whole), (_, first), (_, second) in zip(batches(load, range(2, 5)), *parts, strict=True):
        joined = np.concatenate([first["input_ids"], second["input_ids"]])
        np.testing.assert_array_equal(joined, whole["input_ids"])


def test_too_little_data_is_reported_before_reading():
    with pytest.raises(InputError, match="batch_size"):
        load_batch(small_table(), 0, batch_size=51, seed=0, collate_fn=lambda rows: {})


def test_chunks_read_like_one_column():
    column = TokenColumn(
        (np.arange(5), np.arange(10, 14)), (np.array([0, 2, 2, 5]), np.array([1, 4])), np.array([0, 3, 4])
    )
    assert [column[row].tolist() for row in range(len(column))] == [[0, 1], [], [2, 3, 4], [11, 12, 13]]
    assert column.lengths().tolist() == [2, 0, 3, 3]
    assert column[0].dtype == np.int32
    with pytest.raises(IndexError):
        column[4]


def test_the_order_at_step_ten_million_costs_the_same_as_at_the_first():
    """Neither time nor memory grows with the step."""
    rows, late = small_table(), 10**7

    def read(start: int) -> tuple[float, int]:
        """Return (seconds, bytes) of five batches from `start` on; the best of 5."""
        seconds, peak = [], 0
        for _ in range(5):
            tracemalloc.start()
            begun = time.perf_counter()
            load = partial(load_batch, rows, batch_size=8, seed=3, collate_fn=len)
            stream = batches(load, range(start, start + late), num_workers=0)
            assert [step for step, _ in zip(range(start, start + 5), stream, strict=False)][-1] == start + 4
            seconds.append(time.perf_counter() - begun)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return min(seconds), peak

    read(0)
    (first, little), (last, much) = read(1), read(late)
    assert last < 5 * first + 0.01 and much < 2 * little + 100_000
    assert sorted(batch_indices(late, num_examples=8, batch_size=8, seed=3)) == list(range(8))
