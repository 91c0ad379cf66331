"""The report of a score, and the warning of a meaningless perplexity."""

import pytest

from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.report import differences, low_entropy, provenance, reports, table
from elfcli.scoring.samples_file import SampleProvenance
from elfcli.scoring.score import Texts

TEXTS = ["the old man sleeps", "a dog runs home", "a dog runs home", "no no no no no no", ""]
REAL = ["The old man slept", "the dog runs home", "a cat", "yes", "one more"]


def score_of(generated=TEXTS, references=REAL, **more):
    found = corpus_bleu(generated, references).as_dict()
    return reports([found], Texts(generated, references, references, **more))[0]


def test_every_field():
    score = score_of(
        origin=SampleProvenance({"checkpoint": "run", "seed": 3, "network_calls": 9}, True, "test"), seen=TEXTS[:1]
    )
    assert list(score)[:3] == ["metric", "value", "interval"]
    low, high = score["interval"]
    assert low <= score["value"] <= high and score["num_samples"] == 5
    details = score["details"]
    found = [details[name] for name in ("empty", "degenerate", "duplicate", "memorised", "words")]
    assert found == pytest.approx([0.2, 0.2, 0.2, 0.2, 18 / 5])
    assert details["real"]["words"] == pytest.approx(13 / 5)
    assert details["distinct_1"] == pytest.approx((1 + 1 + 1 + 1 / 6) / 4)
    assert details["distinct_1_across"] == pytest.approx(9 / 18) and details["distinct_4"] == pytest.approx(5 / 6)
    assert "|clean_up:yes|split:test|data:" in score["signature"] and score["signature"].endswith("|samples:5")
    assert score["signature"].startswith("nrefs:1|case:lc|eff:yes")
    shown = table([("one", [score])])
    assert "[" in shown and "real text" in shown and "20.0%" in shown
    assert provenance([[score]])[-1] == "made by: checkpoint run, seed 3, network calls 9"


def test_unknown_provenance_and_empty_texts():
    score = score_of()
    assert score["made_by"] == "unknown" and score["details"]["memorised"] is None
    assert provenance([[score]])[-1] == "made by: unknown"
    (empty,) = reports([{"metric": "ppl", "value": None, "num_samples": 0, "note": "all texts are empty"}],
                       Texts(["", " "]))  # fmt: skip
    assert empty["interval"] is None and empty["details"]["empty"] == 1 and empty["details"]["distinct_1"] is None
    assert "- (all texts are empty)" in table([("none", [empty])])
    old = {"metric": "ppl", "value": 20.0, "entropy": 5.0, "num_samples": 3}  # of an earlier version
    assert "20.00" in table([("old", [old])]) and provenance([[old]]) == ["made by: unknown"]


def test_differences_of_signatures():
    one, other = score_of()["signature"], score_of(references=[*REAL[:-1], "changed"])["signature"]
    assert differences([one, one]) == []
    (line,) = differences([one, other])
    assert line.startswith("data: ")


@pytest.mark.parametrize(
    ("entropy", "real", "tokens", "warned"),
    [
        (4.1, 5.2, 1000, True),  # below 80% of the real text's
        (4.3, 5.2, 1000, False),
        (3.9, None, 1000, True),  # below 4 nats
        (4.1, None, 1000, False),
        (2.6, None, 20, False),  # twenty tokens have no more than 3.0
        (2.2, None, 20, True),
    ],
)
def test_the_warning_of_low_entropy(entropy, real, tokens, warned):
    score = {"metric": "ppl", "entropy": entropy, "num_tokens": 10 * tokens, "num_samples": 10}
    line = low_entropy(score | ({"real": {"entropy": real}} if real else {}))
    assert (line is not None) == warned
    assert not warned or (f"{entropy:.2f}" in line and "\n" not in line)
    assert low_entropy({"metric": "bleu"}) is None
