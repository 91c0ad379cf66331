"""Texts of sampled tokens, if the end token also begins texts."""

import numpy as np
import pytest

from elfcli.flow.postprocess import text_tokens

FREE = {"max_length": 5, "max_input_length": 0}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([9, 4, 5, 9, 6], [4, 5]),  # begins with the token that also ends texts
        ([9, 9, 4, 9, 9], [4]),
        ([4, 5, 9, 9, 6], [4, 5]),
        ([9, 9, 9, 9, 9], []),
    ],
)
@pytest.mark.parametrize("pad", [0, 9])
def test_the_first_eos_does_not_empty_texts_that_begin_with_it(row, expected, pad):
    tokens = np.array([row])
    (text,) = text_tokens(tokens, np.zeros(1, int), **FREE, eos_id=9, pad_id=pad, eos_begins=True)
    assert text == expected


def test_otherwise_the_first_eos_ends_a_text():
    (text,) = text_tokens(np.array([[9, 4, 5, 9, 6]]), np.zeros(1, int), **FREE, eos_id=9, pad_id=0)
    assert text == []
