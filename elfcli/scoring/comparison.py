"""Which settings are better than others: decided only if their signatures agree and the intervals differ. Results of
several seeds are averaged (mean and standard deviation)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from elfcli.errors import InputError
from elfcli.scoring import MODULES, metric
from elfcli.scoring.bootstrap import differs, interval
from elfcli.scoring.report import differences

REAL = "real"  # value of `--at-entropy` for the real text's entropy


@dataclass(frozen=True)
class Verdict:
    """Result of a comparison. best: the winner, None without one. named: the setting to sample with. why: one line."""

    best: dict | None
    named: dict
    why: str


def sign_of(result: dict) -> int:
    """Return 1 if larger values of the first metric are better, otherwise -1."""
    name = result["scores"][0]["metric"]
    return 1 if name not in MODULES or metric(name).larger_is_better else -1


def best_first(results: list[dict]) -> list[dict]:
    """Return the results ranked by the first metric, those without a value last."""

    def rank(result: dict) -> tuple[bool, float]:
        value = result["scores"][0]["value"]
        return value is None, -sign_of(result) * (value or 0)

    return sorted(results, key=rank)


def cost(result: dict) -> int:
    """Return the network calls for one text; the steps in results of earlier versions, which do not record them."""
    made_by = result["scores"][0].get("made_by")
    return made_by["network_calls"] if isinstance(made_by, dict) else result["setting"]["num_sampling_steps"]


def verdict(results: list[dict]) -> Verdict:
    """Name the winner, which is better than every other setting by the paired interval over the same texts. Without a
    winner, name the cheapest setting that the best value is not significantly better than."""
    ranked = best_first(results)
    first, name = ranked[0], ranked[0]["scores"][0]["metric"]
    if first["scores"][0]["value"] is None:
        return Verdict(None, first, f"no setting has a {name}")
    signatures = [result["scores"][0].get("signature") or "" for result in results]
    if unequal := differences(signatures):
        return Verdict(None, first, f"not ranked, for their signatures differ in {'; '.join(unequal)}")
    others = [result for result in ranked[1:] if result["scores"][0]["value"] is not None]
    if not others:
        return Verdict(first, first, f"the only setting with a {name}")
    by = f"by {name}, {'lower' if sign_of(first) < 0 else 'higher'} is better"
    if not draws_of(first):
        return Verdict(None, first, f"{by}; no intervals, so none is called the best")
    equals = [result for result in others if differs(draws_of(first), draws_of(result)) != sign_of(first)]
    if not equals:
        return Verdict(first, first, f"ranked {by}; * is better than all others")
    cheapest = min([first, *equals], key=cost)
    why = f"{by}; {1 + len(equals)} settings do not differ significantly; {cheapest['name']} is the cheapest of them"
    return Verdict(None, cheapest, why)


def draws_of(result: dict) -> list:
    """Return the first metric's value of each bootstrap draw; none in results of earlier versions."""
    return (result.get("resampled") or {}).get(result["scores"][0]["metric"]) or []


def wanted_entropy(text: str | None, metrics: Sequence[str]) -> float | str | None:
    """Return the value of `--at-entropy`: `real` or nats. Raises InputError for others, and if ppl is not scored."""
    if text is None:
        return None
    if "ppl" not in metrics:
        raise InputError("--at-entropy: perplexity is not scored; add --metrics ppl")
    if text == REAL:
        return REAL
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 100:
        raise InputError(f"--at-entropy {text}: expected real, or a positive number of nats")
    return value


def perplexity_at(results: list[dict], wanted: float | str) -> str:
    """Return a line with the perplexity at an entropy and its 95% interval: the logarithm is interpolated between the
    nearest settings that no other setting beats in both figures. The interval is of the texts, at these entropies."""
    judged = [(result, score) for result in results for score in result["scores"]]
    judged = [(result, score) for result, score in judged if score["metric"] == "ppl" and score["value"] is not None]
    scores = [score for _, score in judged]
    real: dict = next((found for score in scores if (found := (score.get("details") or {}).get("real"))), {})
    if wanted == REAL and not real.get("entropy"):
        return "perplexity at the real text's entropy: unknown, because there is no real text; pass --data DIR"
    entropy = float(real["entropy"] if wanted == REAL else wanted)
    what = f"perplexity at the entropy {entropy:.2f}" + (" of the real text" if wanted == REAL else "")
    points = undominated([
        (score["entropy"], score["value"], (result.get("resampled") or {}).get("ppl") or []) for result, score in judged
    ])  # fmt: skip
    entropies = [point[0] for point in points]
    if not points or not entropies[0] <= entropy <= entropies[-1]:
        reached = f"the settings reach {entropies[0]:.2f} to {entropies[-1]:.2f}" if points else "no setting has one"
        return f"{what}: not reached; {reached}"
    compared = f", that of the real text is {real['ppl']:,.2f}" if wanted == REAL else ""

    def at(values: Sequence[float]) -> float:
        return math.exp(float(np.interp(entropy, entropies, np.log(values))))

    draws = tuple(map(at, zip(*(point[2] for point in points), strict=False)))
    spread = "" if (ends := interval(draws)) is None else f" [{ends[0]:,.2f}, {ends[1]:,.2f}]"
    return f"{what}: {at([point[1] for point in points]):,.2f}{spread}, interpolated{compared}"


def undominated(points: Sequence[tuple[float, float, list]]) -> list[tuple[float, float, list]]:
    """Return the points (entropy, perplexity, draws) without those that another beats in one figure and equals or beats
    in the other (a higher entropy, a lower perplexity), by rising entropy."""
    kept: list[tuple[float, float, list]] = []
    for point in sorted(points, key=lambda point: (-point[0], point[1])):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept[::-1]


# --- over seeds -------------------------------------------------------------------------------------------------------


def seeds_of(seed: int, text: str | None) -> list[int]:
    """Return the seeds of `--seeds 0,1,2`, or else that of --seed. Raises InputError for others and repeated ones."""
    if text is None:
        return [seed]
    if seed:
        raise InputError("--seed and --seeds exclude each other")
    seeds: list[int] = []
    for word in text.split(","):
        if not word.strip().isdecimal() or int(word) >= 2**32:
            raise InputError(f"--seeds {text}: '{word.strip()}' is not a seed; expected whole numbers such as 0,1,2")
        if int(word) in seeds:
            raise InputError(f"--seeds {text}: {int(word)} is repeated, which would count the same texts twice")
        seeds.append(int(word))
    return seeds


def over_seeds(results: Sequence[list[dict]], seeds: Sequence[int]) -> list[dict]:
    """Return one result per setting from those of each seed: values are means, `spread` their standard deviation. The
    interval is that of the mean over these seeds, for resampled texts."""
    return [_one_of(list(same), seeds) for same in zip(*results, strict=True)] if len(seeds) > 1 else results[0]


def _one_of(same: list[dict], seeds: Sequence[int]) -> dict:
    by_seed = [result.get("resampled") or {} for result in same]  # none in results of earlier versions
    draws = {
        metric: np.mean([np.asarray(one[metric], float) for one in by_seed], axis=0).tolist()
        for metric in by_seed[0]
        if all(len(one.get(metric, ())) == len(by_seed[0][metric]) for one in by_seed)
    }
    scores = []
    for of_seeds in zip(*(result["scores"] for result in same), strict=True):
        first, values = of_seeds[0], [score["value"] for score in of_seeds]
        made_by = first.get("made_by")
        score = _mean_of(list(of_seeds)) | {
            "interval": interval(draws.get(first["metric"], ())),
            "made_by": made_by | {"seed": list(seeds)} if isinstance(made_by, dict) else made_by,
            "signature": f"{first.get('signature', '')}|seeds:{len(seeds)}",
        }
        if None not in values:
            score |= {"spread": stdev(values), "num_samples": first["num_samples"]}
        score["details"] = (score.get("details") or {}) | {"seeds": list(seeds), "values": values}
        scores.append({name: figure for name, figure in score.items() if name != "intervals"})
    return same[0] | {"seconds": sum(result["seconds"] for result in same), "scores": scores, "resampled": draws}


def _mean_of(values: list[Any]) -> Any:
    """Return the mean of numbers, and of those in dictionaries; of anything else the first."""
    if all(isinstance(value, dict) for value in values):
        return {name: _mean_of([value.get(name) for value in values]) for name in values[0]}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return fmean(values)
    return None if None in values else values[0]
