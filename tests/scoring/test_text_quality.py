"""Faults of texts: which count as degenerate, and their shares."""

import pytest

from elfcli.scoring.text_quality import degenerate, quality_shares, shortcomings

FINE = [
    "",
    "the cat sat on the mat and the dog sat on the rug",
    "red , green , blue , white , black , grey",
    "no , no , I do not think so",
    "Das ist ein kurzer Satz .",
    "very very good",
    "我今天去商店买了一些苹果和面包,然后回家做饭。",
]
LOOPS = [
    "the the the of the the the the",
    "a man is a man is a man is a man",
    "the man the dog . the cat , the end of the",
    ", , , , , , ,",
    "好的好的好的好的好的好的",
    "first some words that are fine and then one two three one two three one two three",
]


@pytest.mark.parametrize("text", FINE)
def test_texts_that_are_fine(text):
    assert not degenerate(text)


@pytest.mark.parametrize("text", LOOPS)
def test_texts_that_repeat_themselves(text):
    assert degenerate(text)


def test_they_are_counted_in_one_line():
    assert shortcomings(FINE[1:]) is None
    line = shortcomings([*FINE, " ", *LOOPS])
    assert all(part in line for part in ("14 texts", "2 empty", "6 degenerate")) and "\n" not in line
    assert "1 empty" in shortcomings(["", "fine"])


def test_shares():
    found = quality_shares(["a b", "a b", " ", "no no no no no no"], {"a b", "c"})
    assert found == {"empty": 0.25, "degenerate": 0.25, "duplicate": 0.25, "memorised": 0.5, "words": 2.5}
