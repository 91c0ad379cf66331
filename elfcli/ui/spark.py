"""Curves of one line of text."""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

BLOCKS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float | None], width: int) -> str:
    """The newest values at most `width` characters wide: means of equal parts, from their lowest to their highest."""
    known = [float(value) for value in values if value is not None and isfinite(value)]
    if len(known) < 2 or width < 1:
        return ""
    count = min(width, len(known))
    edges = [i * len(known) // count for i in range(count + 1)]
    means = [sum(known[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return BLOCKS[0] * count
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] for mean in means)
