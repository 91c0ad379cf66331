"""Lengths of token rows: percentiles, the sequence length that fits them, what another length would cut."""

import numpy as np

PERCENTILES = (50, 90, 99, 100)
MAX_SUGGESTED_LENGTH = 1024
"""Most tokens of a sequence that is not asked for."""


def percentiles(lengths: np.ndarray) -> dict[str, int]:
    """Percentiles of row lengths, and the greatest length."""
    found = np.percentile(lengths, PERCENTILES, method="higher")
    return dict(zip(("p50", "p90", "p99", "max"), map(int, found), strict=True))


def rounded(lengths: np.ndarray, percentile: int) -> int:
    """So many percent of the rows have no more tokens, rounded up to a multiple of 8."""
    return max(-(-int(np.percentile(lengths, percentile, method="inverted_cdf")) // 8) * 8, 8)


def fitting_lengths(lengths: dict[str, np.ndarray], max_input_length: int = 0, percent: int = 99) -> tuple[int, int]:
    """(max_length, max_input_length) with room for 99% of the sources and of the targets or texts, within LONGEST.

    max_input_length: of pairs, where it is given already. percent: instead of 99.
    """
    condition, text = lengths.get("condition_input_ids"), rounded(lengths["input_ids"], percent)
    if condition is None:
        return min(text, MAX_SUGGESTED_LENGTH), 0
    source = max_input_length or min(rounded(condition, percent), MAX_SUGGESTED_LENGTH // 2)
    return source + min(text, MAX_SUGGESTED_LENGTH // 2), source


def truncated_counts(lengths: dict[str, np.ndarray], max_length: int, max_input_length: int) -> dict[str, int]:
    """Rows that collation will cut, per column: conditions over max_input_length, texts that then do not fit."""
    condition = lengths.get("condition_input_ids")
    if condition is None:
        return {"input_ids": int((lengths["input_ids"] > max_length).sum())}
    room = max_length - np.minimum(condition, max_input_length)
    return {
        "condition_input_ids": int((condition > max_input_length).sum()),
        "input_ids": int((lengths["input_ids"] > room).sum()),
    }
