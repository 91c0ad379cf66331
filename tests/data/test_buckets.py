"""Length bucketing: bucket lengths, examples of each bucket, and their order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from elfcli.data.batches import TokenTable, column_from_rows
from elfcli.data.buckets import fitting_buckets, make_buckets, positions_needed

lengths = st.lists(st.integers(1, 64), min_size=1, max_size=80).map(np.array)


def test_an_example_needs_positions_for_condition_text_and_end():
    table = TokenTable(column_from_rows([[1] * 3, [1] * 30, []]), column_from_rows([[1] * 9, [1] * 2, []]))
    assert positions_needed(table, 24, 8).tolist() == [12, 24, 1]
    assert positions_needed(TokenTable(table.input_ids), 24, 8).tolist() == [4, 24, 1]


@settings(max_examples=40, deadline=None)
@given(lengths)
def test_buckets_minimize_the_positions(needed):
    found = fitting_buckets(needed, 64)

    def positions(*buckets):
        ends = np.array([*buckets, 64])
        return ends[np.searchsorted(ends, needed)].mean()

    best = min(positions(a, b) for a in range(8, 64, 8) for b in range(a + 8, 64, 8))
    assert positions(*found) == best if best <= 0.9 * 64 else found == ()


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(1, 6), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_a_pass_has_each_example_once_in_a_bucket_that_it_fits(needed, batch_size, seed, passes):
    buckets = make_buckets(needed, (40, 16, 80), 64, batch_size)
    if buckets is None:
        assert len(needed) < batch_size
        return
    count = int(buckets.batches.sum())
    steps = [buckets.batch(step, seed) for step in range(passes * count, (passes + 1) * count)]
    rows = np.concatenate([rows for _, rows in steps])
    assert len(set(rows.tolist())) == len(rows) == count * batch_size
    assert len(rows) > len(needed) - len(buckets.lengths) * batch_size - batch_size
    assert all((needed[rows] <= length).all() and length in (16, 40, 64) for length, rows in steps)
    if (needed <= 16).sum() >= batch_size:
        assert all(needed[rows].min() > 16 for length, rows in steps if length > 16)


def test_passes_and_seeds_differ():
    buckets = make_buckets(np.arange(64), (16, 32), 64, 4)
    orders = {tuple(np.concatenate([buckets.batch(step, seed)[1] for step in range(first, first + 16)]).tolist())
              for first in (0, 16) for seed in (1, 2)}  # fmt: skip
    assert len(orders) == 4
    assert make_buckets(np.arange(64), (), 64, 4) is None and make_buckets(np.arange(64), (64, 99), 64, 4) is None
