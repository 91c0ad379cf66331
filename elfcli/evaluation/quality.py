"""Texts that are plainly broken, whatever they should say: empty ones, loops, one word over and over."""

import re
from collections import Counter
from collections.abc import Collection

FEWEST_WORDS, LARGEST_SHARE = 6, 1 / 3
LOOPS, LONGEST_PHRASE = 4, 4
LOOPED_STRING = re.compile(rf"(\S{{2,20}}?)\1{{{LOOPS - 1}}}")


def degenerate(text: str) -> bool:
    """Whether one word is more than a third of at least six, or a phrase or string comes four times in a row."""
    words = text.split()
    if len(words) >= FEWEST_WORDS and max(Counter(words).values()) > len(words) * LARGEST_SHARE:
        return True
    # A row of one sign is no loop of words: "......", "1000000000".
    strings = any(len(set(found[1])) > 1 for found in LOOPED_STRING.finditer(text))
    return strings or any(loops(words, size) for size in range(1, LONGEST_PHRASE + 1))


def loops(words: list[str], size: int) -> bool:
    """Whether a phrase of `size` words comes at least four times in a row."""
    run = 0
    for word, later in zip(words, words[size:], strict=False):
        run = run + 1 if word == later else 0
        if run >= size * (LOOPS - 1):
            return True
    return False


def shares(texts: list[str], seen: Collection[str] = ()) -> dict[str, float]:
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
