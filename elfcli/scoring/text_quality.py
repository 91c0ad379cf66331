"""Faults of texts: empty ones, and degenerate ones that repeat themselves."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

MAX_LOOP = 64  # words of the longest phrase whose repetition counts as a loop


def degenerate(text: str) -> bool:
    """Return whether one word is over a third of the text (and occurs four times), or a phrase is repeated three times
    in a row, over six words or more. Texts of fewer than six words (or without spaces) are checked for loops of twelve
    letters."""
    words = text.split()
    if len(words) < 6:
        return has_loop("".join(words), 12)
    most_common = Counter(word for word in words if any(map(str.isalnum, word))).most_common(1)
    count = most_common[0][1] if most_common else 0
    return (count >= 4 and 3 * count > len(words)) or has_loop(words, 6)


def has_loop(units: Sequence[str], least: int) -> bool:
    """Return whether a phrase occurs at least three times in a row, over `least` units or more."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(unit, len(numbers)) for unit in units])
    for period in range(1, min(len(units) // 3, MAX_LOOP) + 1):
        same, needed = ids[period:] == ids[:-period], max(3 * period, least) - period
        if np.count_nonzero(same) >= needed:
            ends = np.concatenate(([-1], np.flatnonzero(~same), [len(same)]))
            if np.diff(ends).max() - 1 >= needed:  # the most equal units in a row
                return True
    return False


def quality_shares(texts: list[str], seen: Collection[str] = ()) -> dict[str, float]:
    """Return the shares (0 to 1) of texts that are `empty`, `degenerate`, a `duplicate` of an earlier one, or
    `memorised` (among those `seen`), and `words` per text."""
    count = max(len(texts), 1)
    full = [text for text in texts if text.strip()]
    return {
        "empty": 1 - len(full) / count,
        "degenerate": sum(map(degenerate, full)) / count,
        "duplicate": 1 - len(set(texts)) / count,
        "memorised": sum(text in seen for text in texts) / count,
        "words": sum(len(text.split()) for text in texts) / count,
    }


def distinct_share(texts: Sequence[str], size: int) -> tuple[float | None, float | None]:
    """Return the share of distinct phrases of `size` words: mean within a text, and across all; None without any."""
    phrases = [list(zip(*(words[i:] for i in range(size)), strict=False)) for words in map(str.split, texts)]
    phrases = [of_text for of_text in phrases if of_text]
    if not phrases:
        return None, None
    within = sum(len(set(of_text)) / len(of_text) for of_text in phrases) / len(phrases)
    return within, len(set().union(*phrases)) / sum(map(len, phrases))


def shortcomings(texts: Sequence[str]) -> str | None:
    """Return a line that counts the empty and the degenerate texts; None if there are none."""
    empty, looped = sum(not text.strip() for text in texts), sum(map(degenerate, texts))
    counts = {f"{empty} empty": empty, f"{looped} degenerate (one word over a third of it, or a loop)": looped}
    parts = [what for what, count in counts.items() if count]
    return f"of {len(texts)} texts {' and '.join(parts)}" if parts else None
