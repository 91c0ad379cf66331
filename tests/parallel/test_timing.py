import time

from elfcli.parallel.timing import seconds_per_step, steps_within


def test_the_median_of_the_timed_steps_counts():
    waits = [0.0, 0.2, 0.01, 0.3, 0.02]  # the first two warm up; a slow step among the others changes nothing
    seconds = seconds_per_step(lambda: time.sleep(waits.pop(0)), warm=2, count=3, at_least=0)
    assert not waits and 0.02 <= seconds < 0.1


def test_whole_steps_that_fit_beside_the_reserve():
    assert steps_within(10.0, 2.0, reserve=1.0) == 4
    assert steps_within(1.0, 2.0, reserve=0.0) == steps_within(1.0, 0.5, reserve=3.0) == 0


def test_slow_steps_are_few(monkeypatch):
    """One to warm up and one that is timed, though five are asked for."""
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr("elfcli.parallel.timing.time.monotonic", lambda: next(clock))
    ran = []
    assert seconds_per_step(lambda: ran.append(0), at_most=20.0) == 30
    assert len(ran) == 2


def test_process_0_decides_how_many_steps_are_timed(monkeypatch):
    """By its own clock, this process would stop after seven steps."""
    decisions = iter([True] * 11 + [False])
    monkeypatch.setattr("elfcli.parallel.timing.broadcast_from_first", lambda compute: next(decisions))
    ran = []
    seconds_per_step(lambda: ran.append(0), at_least=0)
    assert len(ran) == 11
