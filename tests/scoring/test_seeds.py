"""Several seeds: parsing, mean and spread."""

import pytest

from elfcli.errors import InputError
from elfcli.scoring.comparison import over_seeds, seeds_of


def test_seeds_from_the_options():
    assert seeds_of(4, None) == [4] and seeds_of(0, "0, 1,2") == [0, 1, 2]


@pytest.mark.parametrize(
    ("seed", "text", "name"),
    [(0, "0,1,0", " 0 "), (0, "1,x", "'x'"), (0, "-1", "'-1'"), (0, "", "''"), (0, str(2**32), "'4294967296'"),
     (3, "0,1", "--seed ")],
)  # fmt: skip
def test_bad_seeds(seed, text, name):
    with pytest.raises(InputError, match=name):
        seeds_of(seed, text)


def test_mean_and_spread():
    def result(seed, value, low, words):
        score = {"metric": "bleu", "value": value, "interval": [low, 30.0], "num_samples": 9, "signature": "nrefs:1",
                 "made_by": {"seed": seed, "steps": 8}, "details": {"words": words, "real": None}}  # fmt: skip
        return {"name": "ode8", "setting": {}, "seconds": 2.0, "scores": [score],
                "resampled": {"bleu": [value - 1, value, value + 1]}}  # fmt: skip

    one, other = result(0, 20.0, 19.0, 10), result(1, 24.0, 22.0, 12)
    assert over_seeds([[one]], [0]) == [one]
    (found,) = over_seeds([[one], [other]], [0, 1])
    (score,) = found["scores"]
    assert (score["value"], score["num_samples"], found["seconds"]) == (22.0, 9, 4.0)
    assert score["spread"] == pytest.approx(8**0.5) and score["interval"] == pytest.approx([21.05, 22.95])
    assert score["made_by"] == {"seed": [0, 1], "steps": 8} and score["signature"] == "nrefs:1|seeds:2"
    assert score["details"] == {"words": 11, "real": None, "seeds": [0, 1], "values": [20.0, 24.0]}
    other["scores"][0]["value"] = None
    (score,) = over_seeds([[one], [other]], [0, 1])[0]["scores"]
    assert score["value"] is None and "spread" not in score
    del other["resampled"]  # of an earlier version
    assert over_seeds([[one], [other]], [0, 1])[0]["scores"][0]["interval"] is None
