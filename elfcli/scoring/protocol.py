"""The protocol of a score, as its signature names it: the paper's (arXiv 2605.10938) unless something departs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elfcli.errors import InputError, did_you_mean
from elfcli.hub_access import looks_like_a_path

PAPER, SACREBLEU = "paper", "sacrebleu"  # sacrebleu: its own defaults, which most papers on translation report
GPT2_LARGE = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 1280, "n_layer": 36, "n_head": 20}
GPT2_LARGE_NAMES = ("gpt2-large", "openai-community/gpt2-large")


def check_protocol(name: str, metric: str, known: Sequence[str]) -> str:
    """Return the name; raise InputError if the metric does not have this protocol. known: those that it has."""
    if name not in known:
        raise InputError(f"--protocol {name}: {metric} is scored by {' or '.join(known)}{did_you_mean(name, known)}")
    return name


def protocol_part(departures: Sequence[str] = ()) -> str:
    """Return the signature's part: `protocol:paper`, or `protocol:custom (judge, window)` if these depart from it."""
    return f"protocol:custom ({', '.join(departures)})" if departures else f"protocol:{PAPER}"


def departing(signature: str, what: str) -> str:
    """Return the signature of a score that departs from the paper in one more thing; other protocols stay the same."""
    return re.sub(
        rf"protocol:(?:{PAPER}|custom \((.*?)\))",
        lambda found: protocol_part([*filter(None, [found[1]]), what]),
        signature,
    )


def is_gpt2_large(model: str, shape: Any) -> bool:
    """Return whether a judge has the name and the shape of GPT-2 Large. A folder must be called gpt2-large. Only the
    hash in the signature distinguishes other weights of that shape and name."""
    name = Path(model).name if looks_like_a_path(model) else model.partition("@")[0]
    return name in GPT2_LARGE_NAMES and all(getattr(shape, size, None) == n for size, n in GPT2_LARGE.items())
