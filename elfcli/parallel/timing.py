"""A length given in minutes: how long a step takes, and how many of them fit."""

import time
from collections.abc import Callable
from math import inf
from statistics import median
from typing import Any

import jax


def seconds_per_step(
    run_step: Callable[[], Any], warm: int = 2, count: int = 5, at_least: float = 2.0, at_most: float = inf
) -> float:
    """The median time of steps, after `warm` of them: `count`, or as many as take `at_least` seconds.

    run_step() runs a step and returns arrays that are ready when it is done. After `at_most` seconds no further step
    is begun, but one is run to warm up and one is timed in any case.
    """
    began, times = time.monotonic(), list[float]()
    while len(times) < warm + count or sum(times[warm:]) < at_least:
        if len(times) > 1 and time.monotonic() - began > at_most:
            break
        start = time.monotonic()
        jax.block_until_ready(run_step())
        times.append(time.monotonic() - start)
    return median(times[min(warm, len(times) - 1) :])


def steps_within(seconds: float, step_seconds: float, *, reserve: float = 0.0) -> int:
    """Steps that fit into `seconds`, of which `reserve` are for other work; 0 where none does."""
    return max(int((seconds - reserve) / step_seconds), 0)
