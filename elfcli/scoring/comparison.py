"""Which settings are better than others: only where the intervals say so and the signatures agree."""

import math
from dataclasses import dataclass

import numpy as np

from elfcli.errors import InputError
from elfcli.scoring import MODULES, metric
from elfcli.scoring.bootstrap import differs
from elfcli.scoring.report import differences


@dataclass(frozen=True)
class Verdict:
    """best: the winner, None where the intervals name none. named: the setting to sample with. why: one line."""

    best: dict | None
    named: dict
    why: str


def sign_of(result: dict) -> int:
    name = result["scores"][0]["metric"]
    return 1 if name not in MODULES or metric(name).larger_is_better else -1


def best_first(results: list[dict]) -> list[dict]:
    """The results ranked by the first metric, those without a value last."""
    values = [result["scores"][0]["value"] for result in results]
    order = sorted(range(len(results)), key=lambda i: (values[i] is None, -sign_of(results[i]) * (values[i] or 0)))
    return [results[i] for i in order]


def cost(result: dict) -> int:
    """Network calls for one text; the steps where a result of an earlier version does not say."""
    made_by = result["scores"][0].get("made_by")
    return made_by["network_calls"] if isinstance(made_by, dict) else result["setting"]["num_sampling_steps"]


def verdict(results: list[dict]) -> Verdict:
    """A winner is better than every other setting, by the paired interval of the difference over the same texts.

    Otherwise the cheapest setting that the best value is not surely better than.
    """
    ranked = best_first(results)
    first, name = ranked[0], ranked[0]["scores"][0]["metric"]
    direction = "lower" if sign_of(first) < 0 else "higher"
    if first["scores"][0]["value"] is None:
        return Verdict(None, first, f"no setting has a {name}")
    signatures = [result["scores"][0].get("signature") for result in results]
    if found := differences([signature or "" for signature in signatures]):
        return Verdict(None, first, f"not ranked, for their signatures differ in {'; '.join(found)}")
    others = [result for result in ranked[1:] if result["scores"][0]["value"] is not None]
    if not others:
        return Verdict(first, first, f"the only setting with a {name}")
    if not draws_of(first):
        return Verdict(None, first, f"by {name}, {direction} is better; no intervals, so none is called the best")
    as_good = [result for result in others if not beats(first, result)]
    if not as_good:
        return Verdict(first, first, f"ranked by {name}, {direction} is better; * is better than all others")
    named = min([first, *as_good], key=cost)
    why = f"by {name}, {direction} is better; {1 + len(as_good)} settings are as good as each other, within the noise"
    return Verdict(None, named, f"{why}; {named['name']} is the cheapest of them")


def beats(ours: dict, theirs: dict) -> bool:
    return differs(draws_of(ours), draws_of(theirs)) == sign_of(ours)


def draws_of(result: dict) -> list:
    """The ranking metric's value of each bootstrap draw; none in results of earlier versions."""
    return (result.get("resampled") or {}).get(result["scores"][0]["metric"]) or []


REAL = "real"


def wanted_entropy(text: str | None, metrics: list[str] | tuple[str, ...]) -> float | str | None:
    """The value of `--at-entropy`: `real` or nats; InputError for anything else, and where ppl is not scored."""
    if text is None:
        return None
    if "ppl" not in metrics:
        raise InputError("--at-entropy: perplexity is not scored; add --metrics ppl")
    try:
        value = REAL if text == REAL else float(text)
    except ValueError:
        value = math.nan
    if value != REAL and not (isinstance(value, float) and 0 < value < 100):
        raise InputError(f"--at-entropy {text}: expected real, or a positive number of nats")
    return value


def perplexity_at(results: list[dict], wanted: float | str) -> str:
    """One line: the perplexity there, between the two settings around it (the logarithm is interpolated)."""
    scores = [score for result in results for score in result["scores"]
              if score["metric"] == "ppl" and score["value"] is not None]  # fmt: skip
    real: dict = next((found for score in scores if (found := (score.get("details") or {}).get("real"))), {})
    if wanted == REAL and not real.get("entropy"):
        return "perplexity at the real text's entropy: not known, for there is no real text; give --data DIR"
    entropy = float(real["entropy"] if wanted == REAL else wanted)
    what = f"perplexity at the entropy {entropy:.2f}" + (" of the real text" if wanted == REAL else "")
    points = sorted((score["entropy"], math.log(score["value"])) for score in scores)
    entropies, logarithms = [point[0] for point in points], [point[1] for point in points]
    if not points or not entropies[0] <= entropy <= entropies[-1]:
        reached = f"the settings reach {entropies[0]:.2f} to {entropies[-1]:.2f}" if points else "no setting has one"
        return f"{what}: not reached; {reached}"
    beside = f", that of the real text is {real['ppl']:,.2f}" if wanted == REAL else ""
    return f"{what}: {math.exp(float(np.interp(entropy, entropies, logarithms))):,.2f}, interpolated{beside}"
