"""Connects the processes of a run before JAX computes anything."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from elfcli.errors import ElfError
from elfcli.parallel.agree import assert_same_on_all, leave
from elfcli.parallel.place import ProcessLayout, find_place

CONNECT_SECONDS = 300.0


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float | None = None,
) -> None:
    """Connect this process with the others, if there are any (see place.py), within `timeout` seconds, before JAX
    computes. Afterwards a process that fails or dies ends all others (watch.py). Raise InputError for contradictory
    options."""
    timeout = CONNECT_SECONDS if timeout is None else timeout
    if (place := find_place(os.environ, coordinator, num_processes, process_id)) is None:
        return
    place.check_port()
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # stop.py handles signals
    _keep_stdout()
    with _time_limit(timeout, place):
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            local_device_ids=place.local_devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(timeout) + 60,  # later than our own limit: JAX would abort without a message
        )
        jax.devices()  # now, so that no process waits for the devices of one that fails later
    from elfcli.parallel import watch

    watch.start()
    assert_same_on_all("options", {"--num-processes": place.num_processes})


def _keep_stdout() -> None:
    """Redirect what C++ prints on stdout to /dev/null (gloo prints its connections). Python still prints on stdout."""
    sys.stdout.flush()
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=encoding, errors=errors, buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


@contextmanager
def _time_limit(seconds: float, place: ProcessLayout) -> Iterator[None]:
    """End the process with one line if the others do not connect in time. JAX itself would abort in C++."""
    over = threading.Event()

    def limit() -> None:
        if not over.wait(seconds):
            lost, at = place.process_id and not place.reachable(), place.coordinator
            what = f"the coordinator {at} cannot be reached" if lost else f"not all processes connected to {at}"
            leave(f"{place.who}: {what} within {seconds:g} s; is the same command running on every host?")

    threading.Thread(target=limit, name="connect", daemon=True).start()
    try:
        if place.process_id:
            while not place.reachable():
                time.sleep(0.5)
        yield
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ElfError(f"{place.who}: the processes cannot be connected ({reason})") from error
    finally:
        over.set()
