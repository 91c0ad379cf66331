"""Perplexity at a given entropy."""

import math

import pytest

from elfcli.errors import InputError
from elfcli.scoring.comparison import perplexity_at, wanted_entropy


def result(entropy, ppl, real=None):
    score = {"metric": "ppl", "value": ppl, "entropy": entropy, "details": {"real": real}}
    return {"scores": [{"metric": "bleu", "value": 1.0}, score]}


def test_it_is_interpolated_within_the_range_of_the_settings():
    real = {"entropy": 5.0, "ppl": 17.0}
    points = [result(5.2, 40.0, real), result(4.8, 10.0, real), result(4.0, 5.0, real), result(5.5, None, real)]
    line = perplexity_at(points, "real")
    assert all(number in line for number in (f"{math.sqrt(40 * 10):.2f}", "17.00", "5.00"))
    assert "10.00" in perplexity_at(points, 4.8)
    line = perplexity_at(points[1:], "real")
    assert "4.00 to 4.80" in line and "interpolated" not in line
    assert "interpolated" not in perplexity_at([result(5.5, None, real)], 5.0)
    assert "--data" in perplexity_at([result(4.8, 10.0)], "real")


def test_values_of_the_option():
    assert wanted_entropy(None, []) is None and wanted_entropy("real", ["ppl"]) == "real"
    assert wanted_entropy("5.2", ["bleu", "ppl"]) == 5.2
    for text, metrics in (("real", ["bleu"]), ("rael", ["ppl"]), ("-1", ["ppl"]), ("nan", ["ppl"])):
        with pytest.raises(InputError, match="--at-entropy"):
            wanted_entropy(text, metrics)


def test_a_setting_that_another_beats_is_left_out_and_the_value_has_an_interval():
    points = [result(5.0, 20.0), result(5.1, 200.0), result(5.2, 30.0)]
    assert "24.49" in perplexity_at(points, 5.1)
    for point, low, high in zip(points, (18.0, 100.0, 27.0), (22.0, 300.0, 33.0), strict=True):
        point["resampled"] = {"ppl": [low, high] * 20}
    assert "24.49 [22.05, 26.94]" in perplexity_at(points, 5.1)
