"""Held-out examples of data without a validation split: its last rows, which training leaves out."""

from dataclasses import replace

from elfcli.data.batches import rows_between
from elfcli.data.folder import Examples


def without_held_out(examples: Examples, most: int) -> tuple[Examples, Examples | None]:
    """(the rows to train on, the last rows, which are held out): at most `most` and a hundredth of all; None: none."""
    count, total = min(most, len(examples) // 100), len(examples)
    if not count:
        return examples, None
    texts, first = examples.texts, total - count
    last = replace(
        examples,
        tokens=rows_between(examples.tokens, first, total),
        texts=None if texts is None else lambda row: texts(first + row),
    )
    return replace(examples, tokens=rows_between(examples.tokens, 0, first)), last
