"""Parses `--seeds` and averages results over seeds (mean and standard deviation)."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from elfcli.errors import InputError
from elfcli.scoring.bootstrap import interval


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
