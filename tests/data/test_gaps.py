"""Gaps: what is drawn, the pair that follows, and what is read back; templates as text and as tokens."""

import re
from collections import Counter

import numpy as np
import pytest

from elfcli.config.schema import GAP_KINDS
from elfcli.corpus.vocabulary import train_tokenizer
from elfcli.data.batches import collate
from elfcli.data.gaps import MAX_GAPS, ROOM, GapSettings, draw_rooms, draw_spans, drawn_frame, with_room
from elfcli.data.plain_text import plain_encoder
from elfcli.data.templates import (
    GapSize,
    Template,
    continuation,
    frame_of,
    known_tokens,
    parsed,
    read_gaps,
    template_of,
)
from elfcli.data.tokenizers import decoded, load_tokenizer
from elfcli.errors import InputError
from elfcli.models.encoder import encoder_mask

PAD = 1
QUARTERS = GapSettings((0.25,) * 4, PAD, 30, seed=1)
TEXTS = ["the old man saw a red dog, and ran", "a cat sat on the mat; it was fun", "dear John, thank you for all"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 20, folder, 36)
    return load_tokenizer(folder)


def test_known_tokens_stay_and_gaps_have_room():
    frame = with_room(np.arange(10, 18), [(1, 2), (4, 4), (6, 8)], [2, 3, 0], PAD)
    assert frame.ids.tolist() == [10, 11, PAD, PAD, 12, 13, PAD, PAD, PAD, 14, 15, 16, 17]
    assert frame.gaps == ((1, 3), (6, 8), (11, 13)), "the last padding of a room is known"
    batch = collate([frame.example(), {"input_ids": [5]}], max_length=15, max_input_length=0, pad_id=PAD)
    assert np.flatnonzero(~batch["cond_mask"][0]).tolist() == [1, 2, 6, 7, 11, 12], "the padding at the end is known"
    assert np.flatnonzero(~batch["valid_mask"][0]).tolist() == [2, 6, 7, 13, 14], "padding is not encoded"
    assert not batch["cond_mask"][1].any() and batch["valid_mask"][1].sum() == 1
    mask = encoder_mask(*(batch[name][:1] for name in ("cond_mask", "valid_mask")), np.zeros(1, bool))
    assert np.flatnonzero(mask[0, 0]).tolist() == [0, 3, 4, 5, 8, 9, 10], "known tokens do not see what is written"


@pytest.mark.parametrize("length", [0, 1, 2, 5, 30])
def test_every_draw_gives_the_text_back_and_fits(length):
    ids, rooms = np.arange(2, length + 2, dtype=np.int32), set()
    for epoch in range(300):
        frame = drawn_frame(ids, QUARTERS, 3, epoch)
        assert frame.ids[frame.ids != PAD].tolist() == ids.tolist() and len(frame.gaps) <= MAX_GAPS
        example = frame.example()
        inside = [place for start, stop in frame.gaps for place in range(start, stop)]
        assert np.flatnonzero(~example["known"][:-1]).tolist() == inside
        ends = [stop for _, stop in frame.gaps] if len(frame.ids) > length else []
        assert set(np.flatnonzero(frame.ids == PAD)) <= {*inside, *ends}
        assert all(frame.ids[stop] == PAD for stop in ends), "each gap with room says so"
        assert example["known"][-1] == (not frame.open_end)
        rooms.add(len(frame.ids) - length)
        assert not length or frame.gaps[0] != (0, 0)
    found = set(range(ROOM + 1)) if length else {0}
    assert rooms == (found - {1} if length == 1 else found), "an empty gap, the only one in a token, has two positions"


def test_kinds_of_gaps_have_their_shares_and_shapes():
    rng, ids = np.random.default_rng(0), np.arange(30, dtype=np.int32)
    spans = {kind: [draw_spans(30, kind, rng) for _ in range(500)] for kind in GAP_KINDS}
    assert not any(spans["free"])
    assert {len(one) for one in spans["prefix"]} == {1} and {one[0][1] for one in spans["prefix"]} == {30}
    assert {one[0][0] for one in spans["prefix"]} == set(range(1, 31))
    sizes = {stop - start for ((start, stop),) in spans["span"]}
    assert sizes == set(range(16))
    assert {len(one) for one in spans["several"]} == {2, 3, 4}
    lengths = [stop - start for one in spans["several"] for start, stop in one]
    assert 3 < np.mean(lengths) < 6 and max(sum(b - a for a, b in one) for one in spans["several"]) <= 15
    starts = [one[0] for kind in ("span", "several") for one in spans[kind]]
    assert (0, 0) not in starts and any(start == 0 for start, _ in starts), "no empty gap at the beginning"
    counts = Counter(drawn_frame(ids, QUARTERS, 0, epoch).gaps == ((0, 30),) for epoch in range(2000))
    assert counts[True] / 2000 == pytest.approx(0.25, abs=0.03)
    only = GapSettings((0.0, 1.0, 0.0, 0.0), PAD, 30, 1)
    assert all(drawn_frame(ids, only, 0, epoch).open_end for epoch in range(50))


def test_draws_are_a_function_of_seed_example_and_epoch():
    ids = np.arange(30, dtype=np.int32)

    def drawn(seed, example, epoch):
        frame = drawn_frame(ids, GapSettings(QUARTERS.shares, PAD, 30, seed), example, epoch)
        return frame.ids.tolist(), frame.gaps

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    others = [(1, 2, 4), (1, 2, 5), (1, 4, 3), (1, 5, 3), (2, 2, 3)]
    assert len({str(drawn(*one)) for one in [(1, 2, 3), *others]}) >= 5


def test_long_texts_are_cut_to_what_fits():
    for epoch in range(9):
        frame = drawn_frame(np.arange(2, 99, dtype=np.int32), QUARTERS, 0, epoch)
        assert 30 <= len(frame.ids) <= 30 + ROOM


@pytest.mark.parametrize(
    ("text", "known", "sizes"),
    [
        ("Dear [..], thank you [..8].", ("Dear ", ", thank you ", "."), (GapSize(), GapSize(0, 8))),
        (r"a \[..] b[..]", ("a [..] b", ""), (GapSize(),)),
        (r"C:\\[..] \\\[..9]", ("C:\\", " \\[..9]"), (GapSize(),)),
        (r"\[1..5] of [3..3][2..5]", ("[1..5] of ", "", ""), (GapSize(3, 3), GapSize(2, 5))),
    ],
)
def test_templates_are_read_and_written(text, known, sizes):
    assert parsed(text, "here") == Template(known, sizes)
    assert str(parsed(text, "here")) == text


def test_what_a_template_may_hold():
    for text in ("no gap", r"\[..]"):
        with pytest.raises(InputError, match=r"here: no gap .*\[\.\.\]"):
            parsed(text, "here")
    for text, why in (("[..0]", "at most 0 tokens"), ("[5..3]", "[5..3]: write the fewest"), ("[3..]", "here: [3..]")):
        with pytest.raises(InputError, match=re.escape(why)):
            parsed(text, "here")
    assert parsed(str(continuation(r"literal [..] and \ ")), "here") == continuation(r"literal [..] and \ ")
    assert Template(("a ", " b ", "."), (GapSize(), GapSize())).read("a x y b z.") == ["x y", "z"]
    assert Template(("a ", "."), (GapSize(),)).read("b x.") is None


def test_known_text_has_the_tokens_that_it_has_in_a_running_text(tokenizer):
    (running,) = plain_encoder(tokenizer)(["dear John, thank you"])
    template = parsed("dear [..], thank you", "here")
    first, later = known_tokens(tokenizer, template)
    assert running[: len(first)] == first and running[-len(later) :] == later
    frame = frame_of(tokenizer, template, PAD)
    assert frame.ids.tolist() == [*first, *[PAD] * (ROOM + 1), *later] and not frame.open_end
    assert frame.gaps == ((len(first), len(first) + ROOM),)
    ended = frame_of(tokenizer, parsed("[..2] cat[..]", "here"), PAD)
    assert ended.open_end and ended.gaps == ((0, 2), (len(ended.ids),) * 2)
    assert not frame_of(tokenizer, parsed("a cat[..2]", "here"), PAD).open_end
    exact = frame_of(tokenizer, parsed("dear [3..3], thank you", "here"), PAD)
    assert exact.ids.tolist() == [*first, *[PAD] * 3, *later], "nothing says that the text may end before"


def test_the_known_part_is_copied_and_gaps_have_the_spaces_that_they_need(tokenizer):
    def filled(template, gap):
        (whole,) = plain_encoder(tokenizer)(["a" + gap])
        frame, tokens = frame_of(tokenizer, template, PAD), whole[len(plain_encoder(tokenizer)(["a"])[0]) :]
        row = np.append(frame.ids, np.full(40, PAD))
        row[frame.gaps[0][0] :][: len(tokens)] = tokens
        row[frame.gaps[0][0] + len(tokens) + 1 :][: 2 * frame.open_end] = tokens[0]  # after the end of the text
        return template.filled(read_gaps(tokenizer, template, frame, row.tolist(), clean_up=False))

    assert filled(parsed("dear  [..]; QQ!", "here"), " man") == "dear  man; QQ!"
    assert filled(continuation("a cat"), " sat") == "a cat sat"
    assert filled(continuation("a cat"), ", and") == "a cat, and"
    assert filled(parsed("[..] ran", "here"), " man") == "man ran"


def test_templates_of_real_texts_give_the_text_and_its_frame_back(tokenizer):
    for number, text in enumerate(TEXTS * 8):
        ids = np.array(plain_encoder(tokenizer)([text])[0], np.int32)
        rng = np.random.default_rng(number)
        spans = draw_spans(len(ids), GAP_KINDS[1 + number % 3], rng)
        rooms = draw_rooms(spans, rng)
        sizes = [GapSize(0, stop - start + room - 1) if room else GapSize(stop - start, stop - start)
                 for (start, stop), room in zip(spans, rooms, strict=True)]  # fmt: skip
        template, gaps = template_of(tokenizer, ids, spans, sizes, clean_up=False)
        assert parsed(str(template), "here").sizes == template.sizes, "a size that a template may have"
        assert template.filled(gaps) == decoded(tokenizer, [ids], False)[0] == text
        frame = with_room(ids, spans, rooms, PAD)
        assert read_gaps(tokenizer, template, frame, frame.ids.tolist(), False) == gaps


def test_text_that_looks_like_a_gap_is_text(tmp_path):
    train_tokenizer(["a [..] b <extra_id_0>", "xyz"] * 9, tmp_path, 101, keep_whitespace=True)
    tokenizer = load_tokenizer(tmp_path)
    (ids,) = plain_encoder(tokenizer)(["a [..] b <extra_id_0>"])
    assert decoded(tokenizer, [ids], False) == ["a [..] b <extra_id_0>"]
