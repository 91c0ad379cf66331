"""Confidence of a score: 95% intervals by bootstrap, which resamples the scored texts with replacement. The draws
depend on the number of texts alone. So values are the same on any machine, and two scores of the same sources are
paired draw by draw: their difference has an interval as well."""

from collections.abc import Callable, Sequence

import numpy as np

Draws = Sequence[float] | np.ndarray
RESAMPLES, SEED = 1000, 0
LOW, HIGH = 0.025, 0.975


def resampled(
    parts_NxK: Sequence[Sequence[float]] | np.ndarray, formula: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the values (R,) of R draws of N texts; none for fewer than two texts, which have no spread. parts: what
    each text adds to the sums of the score. formula: sums (R, K) to values (R,)."""
    parts = np.asarray(parts_NxK, np.float64)
    count, rng = len(parts), np.random.default_rng(SEED)
    if count < 2:
        return np.zeros(0)
    draws = (rng.integers(count, size=count) for _ in range(RESAMPLES))
    sums = np.stack([np.bincount(draw, minlength=count) @ parts for draw in draws])
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of empty texts has no value
        return formula(sums)


def means(parts_NxK: Sequence[Sequence[float]] | np.ndarray) -> list[np.ndarray]:
    """Return `resampled` for the mean of each column."""
    return list(resampled(parts_NxK, lambda sums: sums / len(parts_NxK)).T) or [np.zeros(0)] * len(parts_NxK[0])


def interval(values_R: Draws) -> list[float] | None:
    """Return [low, high] around the middle 95% of the values; None without values."""
    values = np.asarray(values_R, np.float64)
    values = values[np.isfinite(values)]
    return [float(np.quantile(values, LOW)), float(np.quantile(values, HIGH))] if len(values) else None


def differs(ours_R: Draws, theirs_R: Draws) -> int:
    """Return 1 if our values are significantly higher, -1 if lower, 0 if the interval of the difference holds 0."""
    if len(ours_R) != len(theirs_R):
        return 0
    difference = interval(np.asarray(ours_R, np.float64) - np.asarray(theirs_R, np.float64))
    return 0 if difference is None else int(difference[0] > 0) - int(difference[1] < 0)
