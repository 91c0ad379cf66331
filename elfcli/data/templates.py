r"""Templates: text with gaps, such as `Dear [..], thank you for [..].`, and their tokens.

`[..]` is a gap of at most eight tokens, `[..20]` one of at most 20, `[3..3]` one of three tokens, `[2..5]` one of two
to five, and `\[..]` the three marks themselves (`\\[..]`: a backslash and a gap). A `[..]` at the end may fill the rest
of the sequence. The known text is copied into what is generated; only gaps are decoded.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise, takewhile
from typing import Any, NamedTuple

import numpy as np

from elfcli.data.gaps import ROOM, Frame, Span
from elfcli.data.plain_text import plain_encoder
from elfcli.data.tokenizers import decoded, eos_id, pad_id
from elfcli.errors import InputError

GAP = "[..]"
MARK = re.compile(r"(\\*)\[(\d*)\.\.(\d*)\]")
ANCHORS = (".", "a", "1", ")", "Z", "-")
"""Texts before which nothing stands; the tokens of a text after one of them have no space of a text's beginning."""


class GapSize(NamedTuple):
    """The fewest and most tokens of a gap.

    least: 0 if the model decides. most: None for ROOM, or at the end of a text for all that the sequence has room for.
    """

    least: int = 0
    most: int | None = None

    def __str__(self) -> str:
        return f"[{self.least or ''}..{'' if self.most is None else self.most}]"


class Template(NamedTuple):
    """known: one text more than gaps, each may be empty. sizes: of the gaps."""

    known: tuple[str, ...]
    sizes: tuple[GapSize, ...]

    @property
    def open_end(self) -> bool:
        """Whether the last gap is at the end and as long as the sequence allows."""
        return not self.known[-1] and self.sizes[-1].most is None

    def filled(self, gaps: Sequence[str]) -> str:
        """Return the whole text with these gaps."""
        return self.known[0] + "".join(gap + text for gap, text in zip(gaps, self.known[1:], strict=True))

    def read(self, whole: str) -> list[str] | None:
        """Return the gaps of a whole text, None if it is not one of this template; the first gaps are shortest."""
        found = re.fullmatch("(.*?)".join(map(re.escape, self.known)), whole, re.DOTALL)
        return list(found.groups()) if found else None

    def __str__(self) -> str:
        """Return the template as `parsed` reads it."""
        marks = map(str, self.sizes)
        known = [MARK.sub(lambda at: 2 * at[1] + "\\" + at[0][len(at[1]) :], text) for text in self.known]
        ends = [re.sub(r"\\+$", lambda at: 2 * at[0], text) for text in known[:-1]] + known[-1:]
        return ends[0] + "".join(mark + text for mark, text in zip(marks, ends[1:], strict=True))


def parsed(text: str, where: str) -> Template:
    """Return the template of a text. where: its name in messages. Raises InputError for no or a wrong gap."""
    known, sizes, end = [""], list[GapSize](), 0
    for mark in MARK.finditer(text):
        slashes = mark[1]
        known[-1] += text[end : mark.start()] + slashes[: len(slashes) // 2]
        end = mark.end()
        if len(slashes) % 2:
            known[-1] += mark[0][len(slashes) :]
            continue
        size = GapSize(int(mark[2] or 0), int(mark[3]) if mark[3] else None)
        if size.most == 0:
            raise InputError(f"{where}: a gap of at most 0 tokens; write {GAP}, or a number such as [..8]")
        if size.least > (size.most or 0):
            raise InputError(f"{where}: {size}: write the fewest and the most tokens, such as [2..5] or [3..3]")
        sizes.append(size)
        known.append("")
    known[-1] += text[end:]
    if not sizes:
        raise InputError(f"{where}: no gap in {text[:80]!r}; mark one with {GAP}")
    return Template(tuple(known), tuple(sizes))


def continuation(text: str) -> Template:
    """Return the template of a beginning that is to be continued."""
    return Template((text, ""), (GapSize(),))


def known_tokens(tokenizer: Any, template: Template) -> list[list[int]]:
    """Return the tokens of each known text as they are in a running text: without the space of a text's beginning, and
    without a space before a gap, which is part of the gap's first token."""
    last = len(template.known) - 1
    texts = [text.removesuffix(" ") if place < last else text for place, text in enumerate(template.known)]
    return [*plain_encoder(tokenizer)(texts[:1]), *(_after(tokenizer, text) for text in texts[1:])]


def frame_of(tokenizer: Any, template: Template, pad: int) -> Frame:
    """Return the tokens of the known text with padding in the gaps; an open last gap has none.

    After a gap whose size the model decides there is one known position of padding, as in training.
    """
    first, *later = known_tokens(tokenizer, template)
    ids, gaps = [*first], list[Span]()
    for number, (size, known) in enumerate(zip(template.sizes, later, strict=True), 1):
        last_is_open = template.open_end and number == len(later)
        length = 0 if last_is_open else size.most or ROOM
        gaps.append((len(ids), len(ids) + length))
        ids += [pad] * (length if size.least or last_is_open else length + 1) + known
    return Frame(np.array(ids, np.int32), tuple(gaps), template.open_end)


def _after(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text that stands after others."""
    encode, unknown = plain_encoder(tokenizer), tokenizer.unk_token_id
    for anchor in ANCHORS if text else ():
        alone, together = encode([anchor, anchor + text])
        if unknown not in alone and together[: len(alone)] == alone:
            return together[len(alone) :]
    return encode([text])[0]


@lru_cache(maxsize=4)
def _anchor(tokenizer: Any) -> list[int]:
    """Return tokens that precede others when these are decoded, so that a space before them is kept."""
    encoded, special = plain_encoder(tokenizer)(ANCHORS), set(tokenizer.all_special_ids)
    words = ([token] for token in range(len(tokenizer)) if token not in special and tokenizer.decode([token]).strip())
    return next(ids for ids in chain(encoded, words) if ids and tokenizer.unk_token_id not in ids)


def decoded_after(tokenizer: Any, rows: Sequence[Sequence[int]], clean_up: bool) -> list[str]:
    """Return the texts of token rows that stand after others, with the space at their beginning if they have one."""
    anchor = _anchor(tokenizer)
    start, *texts = decoded(tokenizer, [anchor, *([*anchor, *row] for row in rows)], clean_up)
    return [text.removeprefix(start) for text in texts]


def read_gaps(tokenizer: Any, template: Template, frame: Frame, tokens: Sequence[int], clean_up: bool) -> list[str]:
    """Return the text of each gap from a sequence's tokens (S,), without its padding.

    An open last gap ends at the first end of text.
    """
    ends = {eos_id(tokenizer), pad_id(tokenizer)}
    rows = [list(tokens[start:stop]) for start, stop in frame.gaps]
    if frame.open_end:
        rest = tokens[frame.gaps[-1][0] :]
        rows[-1] = list(takewhile(lambda token: token not in ends, rest))
    rows = [[token for token in row if token not in ends] for row in rows]
    return gap_texts(tokenizer, template, rows, clean_up)


def gap_texts(tokenizer: Any, template: Template, rows: Sequence[Sequence[int]], clean_up: bool) -> list[str]:
    """Return the text of each gap from its tokens. A space that the known text already has is left out."""
    texts = decoded_after(tokenizer, rows, clean_up)
    return [
        text.removeprefix(" ") if not before or before[-1].isspace() else text
        for text, before in zip(texts, template.known, strict=False)
    ]


def template_of(
    tokenizer: Any, ids: Any, spans: Sequence[Span], sizes: Sequence[GapSize], clean_up: bool
) -> tuple[Template, list[str]]:
    """Return the template of a text's tokens (length,) with gaps of these sizes, and the texts of the gaps."""
    ends = [0, *(end for span in spans for end in span), len(ids)]
    parts = [[*ids[a:b]] for a, b in pairwise(ends)]
    (first,), later = decoded(tokenizer, parts[:1], clean_up), decoded_after(tokenizer, parts[1:], clean_up)
    if not parts[0]:  # the beginning of a text has no space before it
        later[0] = later[0].removeprefix(" ")
        later[1] = later[1] if parts[1] else later[1].removeprefix(" ")
    known, gaps = [first, *later[1::2]], later[::2]
    for place, gap in enumerate(gaps):
        if gap.startswith(" "):
            known[place], gaps[place] = f"{known[place]} ", gap[1:]
    return Template(tuple(known), tuple(sizes)), gaps
