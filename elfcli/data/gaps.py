"""Gaps: pairs that are drawn from free texts, so that one model writes freely, continues and fills.

The form is that of T5's span corruption (Raffel et al. 2020): the condition is the known text with a sentinel for each
gap, the target is each sentinel with its gap's tokens. A free text has no condition. What is drawn is a function of
(seed, example, epoch): a resumed run draws the same, and no tokens are stored twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elfcli.config.schema import GAP_KINDS
from elfcli.errors import InputError

MAX_GAPS = 4
ROOM = 2 * MAX_GAPS
"""Positions that a pair needs besides its text: each gap's sentinel stands in the condition and in the target."""
MIN_MEAN, MAX_MEAN = 3, 8  # mean tokens of short gaps, drawn for each text
SENTINEL = "<extra_id_{}>"
RESERVED = 16  # sentinels of a trained tokenizer
Span = tuple[int, int]  # first token of a gap, and the one after it


@dataclass(frozen=True)
class GapSettings:
    """How gaps are drawn. shares: of each of GAP_KINDS. sentinels: their ids. longest: tokens used of a text."""

    shares: tuple[float, ...]
    sentinels: tuple[int, ...]
    longest: int
    seed: int


def sentinels_of(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids of a tokenizer's sentinels in their order; () if it has none."""
    vocabulary, found = tokenizer.get_vocab(), list[int]()
    while (piece := SENTINEL.format(len(found))) in vocabulary:
        found.append(int(vocabulary[piece]))
    return tuple(found)


def require_sentinels(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids of the sentinels. Raises InputError if the tokenizer has fewer than training needs."""
    found = sentinels_of(tokenizer)
    if len(found) < MAX_GAPS:
        raise InputError(
            f"gaps: the tokenizer {tokenizer.name_or_path} has {len(found)} sentinels ({SENTINEL.format(0)}, ...), "
            f"which mark gaps, but {MAX_GAPS} are needed: tokenize again with --train-tokenizer SIZE, which reserves "
            f"{RESERVED}, or with --tokenizer google-t5/t5-small"
        )
    return found


def pair_of(ids: np.ndarray, gaps: GapSettings, example: int, epoch: int) -> dict[str, np.ndarray]:
    """Return an example for `collate`, drawn from a text's tokens (length,) for this epoch."""
    rng = np.random.default_rng((gaps.seed, example, epoch))
    kind = GAP_KINDS[int(np.searchsorted(np.cumsum(gaps.shares)[:-1], rng.random(), side="right"))]
    ids = ids[: gaps.longest]
    condition, target = with_sentinels(ids, draw_spans(len(ids), kind, rng), gaps.sentinels)
    return {"condition_input_ids": condition, "input_ids": target}


def draw_spans(length: int, kind: str, rng: np.random.Generator) -> list[Span]:
    """Return the gaps of a text of `length` tokens, in order, with known tokens between them. Gaps may be empty."""
    if kind == "free" or length == 0:
        return []
    if kind == "prefix":
        return [(int(rng.integers(1, length + 1)), length)]
    half = length // 2
    if kind == "span":
        size = int(rng.integers(half + 1))
        start = int(rng.integers(length - size + 1))
        return [(start, start + size)]
    count = int(rng.integers(2, MAX_GAPS + 1))
    sizes = rng.poisson(rng.integers(MIN_MEAN, MAX_MEAN + 1), count)
    sizes = sizes * min(half / max(sizes.sum(), 1), 1) // 1  # together at most half of the text
    known = length - int(sizes.sum())
    count = min(count, known + 1)
    before = np.sort(rng.choice(known + 1, count, replace=False))  # known tokens before each gap
    starts = before + np.cumsum(sizes[:count]) - sizes[:count]
    return [(int(start), int(start + size)) for start, size in zip(starts, sizes, strict=False)]


def with_sentinels(ids: np.ndarray, spans: Sequence[Span], sentinels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (condition, target) of a text with these gaps; without gaps an empty condition and the text."""
    if not spans:
        return ids[:0], ids
    known, hidden, end = [], [], 0
    for (start, stop), sentinel in zip(spans, sentinels, strict=False):
        mark = np.array([sentinel], ids.dtype)
        known += [ids[end:start], mark]
        hidden += [mark, ids[start:stop]]
        end = stop
    return np.concatenate([*known, ids[end:]]), np.concatenate(hidden)


def gaps_of(tokens: Sequence[int], sentinels: Sequence[int], count: int) -> list[list[int]]:
    """Return the tokens of each of `count` gaps from a generated target. A gap whose sentinel is missing is empty;
    tokens before the first sentinel belong to the first gap, and those after another or a repeated one to none."""
    numbers = {sentinel: number for number, sentinel in enumerate(sentinels)}
    gaps: list[list[int]] = [[] for _ in range(count)]
    place, seen = 0, set[int]()
    for token in tokens:
        if token in numbers:
            place = numbers[token] if numbers[token] < count and token not in seen else -1
            seen.add(token)
        elif place >= 0:
            gaps[place].append(token)
    return gaps
