"""Intervals by bootstrap: they cover, they are the same everywhere, and they are paired."""

import numpy as np
import pytest

from elfcli.scoring.bootstrap import differs, interval, means, resampled


def test_intervals_cover_the_truth():
    """200 synthetic corpora of skewed scores, whose mean is 1: 95% intervals hold it in 90% to 99% of them."""
    rng = np.random.default_rng(1)
    held = [interval(means(rng.exponential(1.0, (150, 1)))[0]) for _ in range(200)]
    assert 0.90 <= np.mean([low <= 1.0 <= high for low, high in held]) <= 0.99
    assert 0.2 < np.mean([high - low for low, high in held]) < 0.45  # 2 * 1.96 / sqrt(150) is 0.32


def test_a_ratio_of_sums_and_the_same_draws_each_time():
    parts = np.random.default_rng(0).uniform(1, 2, (50, 2))
    values = resampled(parts, lambda sums: sums[:, 0] / sums[:, 1])
    assert interval(values)[0] < parts[:, 0].sum() / parts[:, 1].sum() < interval(values)[1]
    np.testing.assert_array_equal(values, resampled(parts, lambda sums: sums[:, 0] / sums[:, 1]))


def test_one_text_has_no_interval():
    assert interval(means([[3.0]])[0]) is None and interval([float("nan")]) is None
    assert interval(means([[3.0], [3.0]])[0]) == [3.0, 3.0]


@pytest.mark.parametrize(("gain", "sign"), [(0.5, 1), (0.0, 0), (-0.5, -1)])
def test_differences_are_paired(gain, sign):
    rng = np.random.default_rng(0)
    texts = rng.normal(0, 20, 200)
    ours = means((texts + gain + rng.normal(0, 1, 200))[:, None])[0]
    theirs = means(texts[:, None])[0]
    assert differs(ours, theirs) == sign
    assert differs(ours, theirs[:0]) == 0  # nothing to compare with
