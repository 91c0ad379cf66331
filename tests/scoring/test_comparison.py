"""Settings are ranked only if intervals and signatures allow it."""

import numpy as np

from elfcli.scoring.bootstrap import means
from elfcli.scoring.comparison import best_first, verdict


def result(name, values, calls, metric="bleu", signature="version:1"):
    (draws,) = means(np.asarray(values, float)[:, None])
    score = {"metric": metric, "value": float(np.mean(values)), "signature": signature,
             "made_by": {"network_calls": calls}}  # fmt: skip
    return {"name": name, "setting": {}, "scores": [score], "resampled": {metric: draws.tolist()}}


def test_best_first():
    def plain(metric, value):
        return {"scores": [{"metric": metric, "value": value}]}

    assert best_first([plain("ppl", v) for v in (3, None, 1)]) == [plain("ppl", v) for v in (1, 3, None)]
    assert best_first([plain("bleu", v) for v in (0.0, 1)]) == [plain("bleu", v) for v in (1, 0.0)]


def test_there_is_a_winner_only_if_the_paired_interval_excludes_0():
    rng = np.random.default_rng(0)
    hard = rng.normal(20, 10, 200)  # texts differ far more than the settings
    eight, sixteen = result("8", hard, 9), result("16", hard + rng.normal(0, 1, 200), 17)
    better = result("64", hard + 1 + rng.normal(0, 1, 200), 65)
    found = verdict([eight, sixteen, better])
    assert found.best is better and found.named is better
    found = verdict([sixteen, eight])
    assert found.best is None and found.named is eight and "8" in found.why
    as_ppl = [result(one["name"], [1], 1, "ppl") | {"resampled": {"ppl": one["resampled"]["bleu"]}} for one in (
        eight, better)]  # fmt: skip
    for one, value in zip(as_ppl, (20.0, 21.0), strict=True):
        one["scores"][0]["value"] = value
    assert verdict(as_ppl).best["name"] == "8"  # lower is better


def test_results_that_cannot_be_compared_are_not_ranked():
    one, two = result("8", [1, 1, 1], 9), result("16", [9, 9, 9], 17, signature="version:2|case:lc")
    found = verdict([one, two])
    assert found.best is None and "version: 1, 2" in found.why and "case: " in found.why
    old = [{"name": str(n), "setting": {"num_sampling_steps": n}, "scores": [{"metric": "bleu", "value": n}]}
           for n in (4, 8)]  # fmt: skip
    found = verdict(old)  # of an earlier version
    assert found.best is None and found.named is old[1]
    empty = {"name": "e", "setting": {}, "scores": [{"metric": "ppl", "value": None}]}
    assert verdict([empty, empty]).best is None
    assert verdict([old[0]]).best is old[0]
