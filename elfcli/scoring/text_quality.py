"""Texts that went wrong: empty ones, and degenerate ones that repeat themselves."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

MAX_LOOP = 64
"""Words of the longest phrase whose repetition counts as a loop."""


def degenerate(text: str) -> bool:
    """Whether one word is over a third of the text (and there four times), or a phrase is repeated in a loop.

    A loop: a phrase at least three times in a row, six words or more in all. Texts of fewer than six words, as of
    languages without spaces, are looked at by characters: a loop has at least twelve.
    """
    words = text.split()
    if len(words) < 6:
        return has_loop("".join(words), 12)
    commonest = Counter(word for word in words if any(map(str.isalnum, word))).most_common(1)
    often = commonest[0][1] if commonest else 0
    return (often >= 4 and 3 * often > len(words)) or has_loop(words, 6)


def has_loop(units: Sequence[str], least: int) -> bool:
    """Whether a phrase follows on itself at least three times, over `least` units or more."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(unit, len(numbers)) for unit in units])
    for period in range(1, min(len(units) // 3, MAX_LOOP) + 1):
        same, needed = ids[period:] == ids[:-period], max(3 * period, least) - period
        if np.count_nonzero(same) >= needed and longest_run(same) >= needed:
            return True
    return False


def longest_run(flags: np.ndarray) -> int:
    """The most True values in a row."""
    ends = np.flatnonzero(~flags)
    return int(np.diff(np.concatenate(([-1], ends, [len(flags)]))).max()) - 1


def quality_shares(texts: list[str], seen: Collection[str] = ()) -> dict[str, float]:
    """Shares (0..1) of texts that are `empty`, `degenerate`, a `duplicate` of an earlier one, or `memorised` (among
    those `seen`), and `words` per text."""
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
    """Distinct phrases of `size` words over all of them: the mean within a text, and across all texts together.

    None where no text has so many words.
    """
    phrases = [list(zip(*(words[i:] for i in range(size)), strict=False)) for words in map(str.split, texts)]
    phrases = [found for found in phrases if found]
    if not phrases:
        return None, None
    within = sum(len(set(found)) / len(found) for found in phrases) / len(phrases)
    return within, len(set().union(*phrases)) / sum(map(len, phrases))


def shortcomings(texts: Sequence[str]) -> str | None:
    """One line that counts the empty and the degenerate texts; None where there are none."""
    counts = {"empty": sum(not text.strip() for text in texts),
              "degenerate (one word over a third of it, or a loop)": sum(map(degenerate, texts))}  # fmt: skip
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return f"of {len(texts)} texts {' and '.join(parts)}" if parts else None
