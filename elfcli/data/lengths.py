"""Lengths of token rows: percentiles, the sequence length that fits them, and truncated rows."""

import numpy as np

PERCENTILES = (50, 90, 99, 100)
MAX_SUGGESTED_LENGTH = 1024
"""Maximum sequence length that is chosen automatically."""


def percentiles(lengths: np.ndarray) -> dict[str, int]:
    """Return percentiles of row lengths and the maximum length."""
    values = np.percentile(lengths, PERCENTILES, method="higher")
    return dict(zip(("p50", "p90", "p99", "max"), map(int, values), strict=True))


def rounded(lengths: np.ndarray, percentile: int) -> int:
    """Return a percentile of row lengths, rounded up to a multiple of 8."""
    return max(-(-int(np.percentile(lengths, percentile, method="inverted_cdf")) // 8) * 8, 8)


def fitting_lengths(lengths: dict[str, np.ndarray], max_input_length: int = 0, percent: int = 99) -> tuple[int, int]:
    """Return (max_length, max_input_length) that fit `percent` of the sources and of the targets or texts.

    Both are limited by MAX_SUGGESTED_LENGTH. max_input_length: the value for pairs if it is already set, else 0.
    """
    condition, text = lengths.get("condition_input_ids"), rounded(lengths["input_ids"], percent)
    if condition is None:
        return min(text, MAX_SUGGESTED_LENGTH), 0
    source = max_input_length or min(rounded(condition, percent), MAX_SUGGESTED_LENGTH // 2)
    return source + min(text, MAX_SUGGESTED_LENGTH // 2), source


def truncated_counts(lengths: dict[str, np.ndarray], max_length: int, max_input_length: int) -> dict[str, int]:
    """Return the number of rows per column that collation will truncate, after conditions are truncated."""
    condition = lengths.get("condition_input_ids")
    if condition is None:
        return {"input_ids": int((lengths["input_ids"] > max_length).sum())}
    room = max_length - np.minimum(condition, max_input_length)
    return {
        "condition_input_ids": int((condition > max_input_length).sum()),
        "input_ids": int((lengths["input_ids"] > room).sum()),
    }
