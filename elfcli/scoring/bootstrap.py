"""How sure a score is: 95% intervals by bootstrap, which draws the scored texts anew with replacement.

The draws depend on the number of texts alone. So the same values come out on any machine, and two scores of the same
sources are paired draw by draw: their difference has an interval too.
"""

from collections.abc import Callable, Sequence

import numpy as np

Draws = Sequence[float] | np.ndarray
RESAMPLES, SEED = 1000, 0
LOW, HIGH = 0.025, 0.975


def resampled(parts_NxK, formula: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Values (R,) of R draws of N texts; none for fewer than two texts, which say nothing about the spread.

    parts: what each text adds to the sums that the score is made of. formula: sums (R, K) to values (R,).
    """
    parts = np.asarray(parts_NxK, np.float64)
    count, rng = len(parts), np.random.default_rng(SEED)
    if count < 2:
        return np.zeros(0)
    draws = (rng.integers(count, size=count) for _ in range(RESAMPLES))
    sums = np.stack([np.bincount(draw, minlength=count) @ parts for draw in draws])
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of empty texts has no value
        return formula(sums)


def means(parts_NxK) -> list[np.ndarray]:
    """`resampled` for the mean of each column."""
    return list(resampled(parts_NxK, lambda sums: sums / len(parts_NxK)).T) or [np.zeros(0)] * len(parts_NxK[0])


def interval(values_R: Draws) -> list[float] | None:
    """[low, high], which holds the middle 95% of the values; None without values."""
    values = np.asarray(values_R, np.float64)
    values = values[np.isfinite(values)]
    return [float(np.quantile(values, LOW)), float(np.quantile(values, HIGH))] if len(values) else None


def differs(ours_R: Draws, theirs_R: Draws) -> int:
    """1 where our values lie above the others for sure, -1 below, 0 where the interval of the difference holds 0."""
    if len(ours_R) != len(theirs_R):
        return 0
    found = interval(np.asarray(ours_R, np.float64) - np.asarray(theirs_R, np.float64))
    return 0 if found is None else int(found[0] > 0) - int(found[1] < 0)
