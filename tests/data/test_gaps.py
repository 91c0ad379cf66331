"""Gaps: what is drawn, the pair that follows, and what is read back; templates as text and as tokens."""

from collections import Counter

import numpy as np
import pytest

from elfcli.config.schema import GAP_KINDS
from elfcli.corpus.vocabulary import train_tokenizer
from elfcli.data.batches import collate
from elfcli.data.gaps import MAX_GAPS, ROOM, GapSettings, draw_spans, gaps_of, pair_of, sentinels_of, with_sentinels
from elfcli.data.plain_text import plain_encoder
from elfcli.data.templates import Template, condition_of, continuation, known_tokens, parsed, read_gaps, template_of
from elfcli.data.tokenizers import decoded, load_tokenizer
from elfcli.errors import InputError

MARKS = tuple(range(100, 116))
QUARTERS = GapSettings((0.25,) * 4, MARKS, 30, seed=1)
TEXTS = ["the old man saw a red dog, and ran", "a cat sat on the mat; it was fun", "dear John, thank you for all"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 20, folder, 36, sentinels=16)
    return load_tokenizer(folder)


def test_the_pair_is_that_of_span_corruption():
    condition, target = with_sentinels(np.arange(8), [(1, 2), (4, 4), (6, 8)], MARKS)
    assert condition.tolist() == [0, 100, 2, 3, 101, 4, 5, 102]
    assert target.tolist() == [100, 1, 101, 102, 6, 7]
    assert gaps_of(target.tolist(), MARKS, 3) == [[1], [], [6, 7]]
    assert [ids.tolist() for ids in with_sentinels(np.arange(3), [], MARKS)] == [[], [0, 1, 2]]


def test_generated_targets_without_their_sentinels_are_read_as_far_as_they_go():
    assert gaps_of([7, 101, 8], MARKS, 2) == [[7], [8]]
    assert gaps_of([100, 7, 100, 8, 109, 9, 101, 5], MARKS, 2) == [[7], [5]]


@pytest.mark.parametrize("length", [0, 1, 2, 5, 30])
def test_every_draw_gives_the_text_back_and_fits(length):
    ids, most = np.arange(length, dtype=np.int32), 0
    for epoch in range(300):
        condition, target = pair_of(ids, QUARTERS, 3, epoch).values()
        marks = [token for token in condition.tolist() if token in MARKS]
        assert marks == list(MARKS[: len(marks)]) and len(marks) <= MAX_GAPS
        gaps = gaps_of(target.tolist(), MARKS, len(marks)) if marks else []
        whole = [t for token in condition.tolist() for t in (gaps[token - 100] if token >= 100 else [token])]
        assert (whole or target.tolist()) == ids.tolist()
        most = max(most, len(condition) + len(target))
    assert most <= length + ROOM


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
    counts = Counter(len(pair_of(ids, QUARTERS, 0, epoch)["condition_input_ids"]) == 0 for epoch in range(2000))
    assert counts[True] / 2000 == pytest.approx(0.25, abs=0.03)
    only = GapSettings((0.0, 1.0, 0.0, 0.0), MARKS, 30, 1)
    assert all(pair_of(ids, only, 0, epoch)["condition_input_ids"][-1] == 100 for epoch in range(50))


def test_draws_are_a_function_of_seed_example_and_epoch():
    ids = np.arange(30, dtype=np.int32)

    def drawn(seed, example, epoch):
        settings = GapSettings(QUARTERS.shares, MARKS, 30, seed)
        return [array.tolist() for array in pair_of(ids, settings, example, epoch).values()]

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    others = [(1, 2, 4), (1, 2, 5), (1, 4, 3), (1, 5, 3), (2, 2, 3)]
    assert len({str(drawn(*one)) for one in [(1, 2, 3), *others]}) >= 5


def test_long_texts_are_cut_to_what_fits():
    example = pair_of(np.arange(99, dtype=np.int32), QUARTERS, 0, 0)
    batch = collate([example], max_length=38, max_input_length=34, pad_id=1)
    together = sum(map(len, example.values()))
    assert together <= 38 and batch["valid_mask"].sum() == together


@pytest.mark.parametrize(
    ("text", "known", "limits"),
    [
        ("Dear [..], thank you [..8].", ("Dear ", ", thank you ", "."), (None, 8)),
        (r"a \[..] b[..]", ("a [..] b", ""), (None,)),
        (r"C:\\[..] \\\[..9]", ("C:\\", " \\[..9]"), (None,)),
    ],
)
def test_templates_are_read_and_written(text, known, limits):
    assert parsed(text, "here") == Template(known, limits)
    assert str(parsed(text, "here")) == text


def test_what_a_template_may_hold():
    for text in ("no gap", r"\[..]"):
        with pytest.raises(InputError, match=r"here: no gap .*\[\.\.\]"):
            parsed(text, "here")
    with pytest.raises(InputError, match="at most 0 tokens"):
        parsed("[..0]", "here")
    assert parsed(str(continuation(r"literal [..] and \ ")), "here") == continuation(r"literal [..] and \ ")
    assert Template(("a ", " b ", "."), (None, None)).read("a x y b z.") == ["x y", "z"]
    assert Template(("a ", "."), (None,)).read("b x.") is None


def test_known_text_has_the_tokens_that_it_has_in_a_running_text(tokenizer):
    (running,) = plain_encoder(tokenizer)(["dear John, thank you"])
    template = parsed("dear [..], thank you", "here")
    first, later = known_tokens(tokenizer, template)
    assert running[: len(first)] == first and running[-len(later) :] == later
    mark = sentinels_of(tokenizer)[0]
    assert condition_of(tokenizer, template) == [*first, mark, *later]
    with pytest.raises(InputError, match=r"17 gaps in .* 16 sentinels"):
        condition_of(tokenizer, parsed("a [..] " * 17, "here"))


def test_the_known_part_is_copied_and_gaps_have_the_spaces_that_they_need(tokenizer):
    mark = sentinels_of(tokenizer)[0]

    def filled(template, gap):
        (whole,) = plain_encoder(tokenizer)(["a" + gap])
        tokens = whole[len(plain_encoder(tokenizer)(["a"])[0]) :]
        return template.filled(read_gaps(tokenizer, template, [mark, *tokens], clean_up=False))

    assert filled(parsed("dear  [..]; QQ!", "here"), " man") == "dear  man; QQ!"
    assert filled(continuation("a cat"), " sat") == "a cat sat"
    assert filled(continuation("a cat"), ", and") == "a cat, and"
    assert filled(parsed("[..] ran", "here"), " man") == "man ran"
    (tokens,) = plain_encoder(tokenizer)(["on the mat"])
    limited = read_gaps(tokenizer, parsed("a [..2]", "here"), [mark, *tokens], False)
    assert len(tokens) > 2 and len(plain_encoder(tokenizer)(limited)[0]) <= 2


def test_templates_of_real_texts_give_the_text_and_its_pair_back(tokenizer):
    for number, text in enumerate(TEXTS * 8):
        ids = np.array(plain_encoder(tokenizer)([text])[0], np.int32)
        spans = draw_spans(len(ids), GAP_KINDS[1 + number % 3], np.random.default_rng(number))
        template, gaps = template_of(tokenizer, ids, spans, clean_up=False)
        assert template.filled(gaps) == decoded(tokenizer, [ids], False)[0] == text
        _, target = with_sentinels(ids, spans, sentinels_of(tokenizer))
        assert read_gaps(tokenizer, template, target.tolist(), False) == gaps


def test_text_that_looks_like_a_gap_is_text(tokenizer, tmp_path):
    train_tokenizer(["a [..] b <extra_id_0>", "xyz"] * 9, tmp_path, 101, keep_whitespace=True, sentinels=16)
    for one in (tokenizer, load_tokenizer(tmp_path)):
        marks = sentinels_of(one)
        assert len(marks) == 16 and len(set(marks)) == 16
        (ids,) = plain_encoder(one)(["a [..] b <extra_id_0>"])
        assert not set(ids) & set(marks)
    assert decoded(one, [ids], False) == ["a [..] b <extra_id_0>"]
