"""Several seeds: which are asked for, and the mean and the spread of what they gave."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from elfcli.errors import InputError
from elfcli.scoring.bootstrap import interval

MAX_SEED = 2**32 - 1


def seeds_of(seed: int, text: str | None) -> list[int]:
    """The seeds of `--seeds 0,1,2`, else the one of --seed; InputError for anything else, and for one given twice."""
    if text is None:
        return [seed]
    if seed:
        raise InputError("--seed and --seeds exclude each other")
    found: list[int] = []
    for word in text.split(","):
        if not word.strip().isdecimal() or int(word) > MAX_SEED:
            raise InputError(f"--seeds {text}: '{word.strip()}' is no seed; expected whole numbers such as 0,1,2")
        if int(word) in found:
            raise InputError(f"--seeds {text}: {int(word)} is there twice, which would count the same texts twice")
        found.append(int(word))
    return found


def over_seeds(results: Sequence[list[dict]], seeds: Sequence[int]) -> list[dict]:
    """One result per setting from those of each seed: values are means, `spread` their standard deviation.

    The interval is that of the mean over these seeds, for texts drawn anew.
    """
    return [one_of(list(same), seeds) for same in zip(*results, strict=True)] if len(seeds) > 1 else results[0]


def one_of(same: list[dict], seeds: Sequence[int]) -> dict:
    found = [result.get("resampled") or {} for result in same]  # none in results of earlier versions
    draws = {
        metric: np.mean([np.asarray(one[metric], float) for one in found], axis=0).tolist()
        for metric in found[0]
        if all(len(one.get(metric, ())) == len(found[0][metric]) for one in found)
    }
    scores = []
    for of_seeds in zip(*(result["scores"] for result in same), strict=True):
        values = [score["value"] for score in of_seeds]
        known = [value for value in values if value is not None]
        score = mean_of(list(of_seeds)) | {
            "interval": interval(draws.get(of_seeds[0]["metric"], ())),
            "made_by": made_by_seeds(of_seeds[0].get("made_by"), seeds),
            "signature": f"{of_seeds[0].get('signature', '')}|seeds:{len(seeds)}",
        }
        if len(known) == len(values):
            score |= {"spread": stdev(known), "num_samples": of_seeds[0]["num_samples"]}
        score["details"] = (score.get("details") or {}) | {"seeds": list(seeds), "values": values}
        scores.append({name: figure for name, figure in score.items() if name != "intervals"})
    return same[0] | {"seconds": sum(result["seconds"] for result in same), "scores": scores, "resampled": draws}


def mean_of(found: list[Any]) -> Any:
    """The mean of numbers, and of those in dictionaries; of anything else the first."""
    if all(isinstance(one, dict) for one in found):
        return {name: mean_of([one.get(name) for one in found]) for name in found[0]}
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in found):
        return fmean(found)
    return None if any(one is None for one in found) else found[0]


def made_by_seeds(made_by: Any, seeds: Sequence[int]) -> Any:
    return made_by | {"seed": list(seeds)} if isinstance(made_by, dict) else made_by
