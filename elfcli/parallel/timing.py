"""Measures the time of a step, and converts a time budget into a number of steps."""

import time
from collections.abc import Callable
from math import inf
from statistics import median
from typing import Any

import jax

from elfcli.parallel.agree import broadcast_from_first


def seconds_per_step(
    run_step: Callable[[], Any], warm: int = 2, count: int = 5, at_least: float = 2.0, at_most: float = inf
) -> float:
    """Return the median time of `count` steps, or of more until `at_least` seconds, after `warm` more. run_step()
    returns arrays that are ready when it is done. After `at_most` seconds none begins, but one is run to warm up and
    one is timed. Process 0 decides by its clock for all: a step of a different number of processes would hang."""
    began, times = time.monotonic(), list[float]()

    def another() -> bool:
        if len(times) > 1 and time.monotonic() - began > at_most:
            return False
        return len(times) < warm + count or sum(times[warm:]) < at_least

    while broadcast_from_first(another):
        start = time.monotonic()
        jax.block_until_ready(run_step())
        times.append(time.monotonic() - start)
    return median(times[min(warm, len(times) - 1) :])


def steps_within(seconds: float, step_seconds: float, *, reserve: float = 0.0) -> int:
    """Return the number of steps that fit into `seconds`, of which `reserve` are for other work. At least 0."""
    return max(int((seconds - reserve) / step_seconds), 0)
