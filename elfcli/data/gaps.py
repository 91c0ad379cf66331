"""Gaps in free texts, so that one model writes freely, continues and fills.

Known tokens stay at their places. A gap is as long as its text, or it has room for padding, so that a model learns
where the text ends; one known position of padding at its end tells that it has. Everything that is not known is
denoised. What is drawn is a function of (seed, example, epoch): a resumed run draws the same, and no tokens are stored
twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from elfcli.config.schema import GAP_KINDS

MAX_GAPS = 4
ROOM = 8
"""Positions for padding in the gaps of a text, together; those of an example are drawn, up to this number."""
EXACT = 0.5  # share of texts whose gaps are as long as their texts
FREE = (1.0, 0.0, 0.0, 0.0)  # shares of GAP_KINDS without any gaps
MIN_MEAN, MAX_MEAN = 3, 8  # mean tokens of short gaps, drawn for each text
Span = tuple[int, int]  # first token of a gap, and the one after it


class Frame(NamedTuple):
    """Token ids (length,), int32, with padding in the gaps, and the positions of the gaps.

    open_end: whether the last gap has all positions of the sequence that follow.
    """

    ids: np.ndarray
    gaps: tuple[Span, ...]
    open_end: bool = False

    def example(self) -> dict[str, np.ndarray]:
        """Return the columns that `collate` takes. known: bool (length + 1,), the last for all later positions."""
        known = np.ones(len(self.ids) + 1, bool)
        for start, stop in self.gaps:
            known[start:stop] = False
        known[-1] = not self.open_end
        return {"input_ids": self.ids, "known": known}


@dataclass(frozen=True)
class GapSettings:
    """How gaps are drawn. shares: of each of GAP_KINDS. pad: the padding's id. longest: tokens used of a text."""

    shares: tuple[float, ...]
    pad: int
    longest: int
    seed: int


def drawn_frame(ids: np.ndarray, gaps: GapSettings, example: int, epoch: int) -> Frame:
    """Return a text's tokens (length,) with the gaps of this epoch."""
    rng = np.random.default_rng((gaps.seed, example, epoch))
    kind = GAP_KINDS[int(np.searchsorted(np.cumsum(gaps.shares)[:-1], rng.random(), side="right"))]
    ids = ids[: gaps.longest]
    spans = draw_spans(len(ids), kind, rng)
    if not spans or kind == "prefix":
        return Frame(ids, tuple(spans) or ((0, len(ids)),), open_end=True)
    return with_room(ids, spans, draw_rooms(spans, rng), gaps.pad)


def draw_spans(length: int, kind: str, rng: np.random.Generator) -> list[Span]:
    """Return the gaps of a text of `length` tokens, in order, with known tokens between them.

    Gaps may be empty, except at the beginning, where a fill would need a space that the text does not have.
    """
    if kind == "free" or length == 0:
        return []
    if kind == "prefix":
        return [(int(rng.integers(1, length + 1)), length)]
    half = length // 2
    if kind == "span":
        size = int(rng.integers(half + 1))
        start = int(rng.integers(int(size == 0), length - size + 1))
        return [(start, start + size)]
    count = int(rng.integers(2, MAX_GAPS + 1))
    sizes = rng.poisson(rng.integers(MIN_MEAN, MAX_MEAN + 1), count)
    sizes = sizes * min(half / max(sizes.sum(), 1), 1) // 1  # together at most half of the text
    known = length - int(sizes.sum())
    first = int(not sizes.any())
    count = min(count, known + 1 - first)
    before = np.sort(rng.choice(known + 1 - first, count, replace=False)) + first  # known tokens before each gap
    if before[0] == 0:  # the largest gap first, so that it is not empty
        sizes = np.sort(sizes)[::-1]
    starts = before + np.cumsum(sizes[:count]) - sizes[:count]
    return [(int(start), int(start + size)) for start, size in zip(starts, sizes, strict=False)]


def draw_rooms(spans: Sequence[Span], rng: np.random.Generator) -> list[int]:
    """Return the padding of each gap: none, or for each gap at least one position, together at most ROOM.

    Texts with an empty gap always have padding, two positions at least in that gap: one of them is known.
    """
    least = np.array([1 + (start == stop) for start, stop in spans])
    if rng.random() < EXACT and least.max() == 1:
        return [0] * len(spans)
    more = rng.multinomial(rng.integers(ROOM + 1 - least.sum()), np.full(len(spans), 1 / len(spans)))
    return (least + more).tolist()


def with_room(ids: np.ndarray, spans: Sequence[Span], rooms: Sequence[int], pad: int) -> Frame:
    """Return a text's tokens (length,) with as much padding at the end of each gap as its room says.

    The last position of a room is known.
    """
    added = np.cumsum([0, *rooms]).tolist()
    gaps = [(start + before, stop + before + max(room - 1, 0))
            for (start, stop), before, room in zip(spans, added, rooms, strict=False)]  # fmt: skip
    return Frame(np.insert(ids, np.repeat([stop for _, stop in spans], rooms), pad), tuple(gaps))
