"""Time for a run: how long a step takes, and how many steps fit into what is left."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax


def seconds_per_step(run_step: Callable[[], Any], warm: int = 2, count: int = 5) -> float:
    """Median seconds of `count` calls of `run_step`, each until its arrays are ready, after `warm` calls."""
    seconds = []
    for _ in range(warm + count):
        start = time.monotonic()
        jax.block_until_ready(run_step())
        seconds.append(time.monotonic() - start)
    return median(seconds[warm:])


def steps_within(seconds_left: float, step_seconds: float, *, reserve: float) -> int:
    """Whole steps that fit, 0 where none does. reserve: seconds for what comes after the last step."""
    return max(int((seconds_left - reserve) / max(step_seconds, 1e-9)), 0)
