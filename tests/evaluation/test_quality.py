"""Texts that are plainly broken."""

import pytest

from elfcli.evaluation.quality import degenerate, shares


@pytest.mark.parametrize(
    "text",
    [
        "the cat the dog the bird",  # a word more than a third
        "so it goes so it goes so it goes so it goes and on",
        "no no no no",
        "we saw a hahahaha there",
    ],
)
def test_degenerate(text):
    assert degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the old man gives the ball to the girl",  # exactly a third
        "the the a b",  # too short for shares
        "so it goes so it goes so it goes and on",  # three times
        "well ...... it cost 1000000000 --------",
    ],
)
def test_not_degenerate(text):
    assert not degenerate(text)


def test_shares():
    found = shares(["a b", "a b", " ", "no no no no"], {"a b", "c"})
    assert found == {"empty": 0.25, "degenerate": 0.25, "duplicate": 0.25, "memorised": 0.5, "words": 2.0}
