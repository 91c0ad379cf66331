"""Perplexity at a given entropy: what settings with different entropies are compared by."""

import math

import numpy as np

from elfcli.errors import InputError

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


def at_entropy(results: list[dict], wanted: float | str) -> str:
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
