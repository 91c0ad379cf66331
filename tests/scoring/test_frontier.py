"""Perplexity at a given entropy."""

import math

import pytest

from elfcli.errors import InputError
from elfcli.scoring.comparison import perplexity_at, wanted_entropy


def result(entropy, ppl, real=None):
    score = {"metric": "ppl", "value": ppl, "entropy": entropy, "details": {"real": real}}
    return {"scores": [{"metric": "bleu", "value": 1.0}, score]}


def test_it_is_interpolated_or_not_reached():
    real = {"entropy": 5.0, "ppl": 17.0}
    points = [result(5.2, 40.0, real), result(4.8, 10.0, real), result(4.0, 5.0, real), result(5.5, None, real)]
    line = perplexity_at(points, "real")
    assert f"{math.sqrt(40 * 10):.2f}, interpolated, that of the real text is 17.00" in line and "entropy 5.00" in line
    assert "10.00, interpolated" in perplexity_at(points, 4.8)
    assert perplexity_at(points[1:], "real").endswith("not reached; the settings reach 4.00 to 4.80")
    assert "no setting has one" in perplexity_at([result(5.5, None, real)], 5.0)
    assert "no real text; give --data" in perplexity_at([result(4.8, 10.0)], "real")


def test_what_is_wanted():
    assert wanted_entropy(None, []) is None and wanted_entropy("real", ["ppl"]) == "real"
    assert wanted_entropy("5.2", ["bleu", "ppl"]) == 5.2
    for text, metrics in (("real", ["bleu"]), ("rael", ["ppl"]), ("-1", ["ppl"]), ("nan", ["ppl"])):
        with pytest.raises(InputError, match="--at-entropy"):
            wanted_entropy(text, metrics)
