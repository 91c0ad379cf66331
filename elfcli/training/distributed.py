"""Several processes, one per host: joining them, and taking the same decision in all of them.

Values are exchanged through the key-value store of JAX's coordinator, which is there before any device is; nothing
here computes on devices. With a single process every function is what its name says for one, at no cost.
"""

import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from elfcli.errors import ElfError, InputError
from elfcli.training.place import Place, find_place

CONNECT_SECONDS = 300.0
_exchanges = itertools.count()


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float | None = None,
) -> None:
    """Joins the other processes where there are some (place.py says how that is found out), before JAX computes.

    timeout: seconds in which all have to come. From here on a process that fails or vanishes ends all of them
    (watch.py). InputError for options that do not go together.
    """
    timeout = CONNECT_SECONDS if timeout is None else timeout
    place = find_place(os.environ, coordinator, num_processes, process_id)
    if place is None:
        return
    place.check_port()
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # signals are ours (signals.py)
    _keep_stdout()
    with _time_limit(timeout, place):
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            local_device_ids=place.local_devices,
            cluster_detection_method="deactivate" if place.coordinator else None,
            initialization_timeout=int(timeout) + 60,  # past our limit: JAX aborts where we say what is wrong
        )
        jax.devices()  # here, so that no process waits for the devices of one that fails later
    from elfcli.training import watch

    watch.start()
    if place.coordinator:
        require_same("options", {"--num-processes": place.num_processes})


def _keep_stdout() -> None:
    """Keeps standard output for Python: the CPU's collectives print there how they connect."""
    sys.stdout.flush()
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=encoding, errors=errors, buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


@contextmanager
def _time_limit(seconds: float, place: Place) -> Iterator[None]:
    """Ends the process with one line where the others are not there in time: a failed connection aborts in C++."""
    over = threading.Event()

    def limit() -> None:
        if not over.wait(seconds):
            leave(f"{place.who}: {place.missing()} within {seconds:g} s; is the same command running on every host?")

    threading.Thread(target=limit, name="connect", daemon=True).start()
    try:
        if place.process_id:
            while not place.reachable():
                time.sleep(0.5)
        yield
    except (RuntimeError, ValueError) as error:
        raise ElfError(
            f"{place.who}: the processes cannot be joined ({' '.join(str(error).split())[:300]})"
        ) from error
    finally:
        over.set()


def leave(text: str, code: int = 1) -> NoReturn:
    """Prints one line and ends this process at once, whatever its main thread is doing."""
    from elfcli.ui.progress import console

    if console.is_terminal:
        console.show_cursor(True)
    if text:
        print(f"error: {text}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def client() -> Any:
    """JAX's connection to the coordinator; None with a single process."""
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    from jax._src.distributed import global_state  # no public way to the key-value store

    return global_state.client if (global_state.num_processes or 1) > 1 else None


def this_process() -> int:
    """Number of this process."""
    if client() is None:
        return 0
    import jax

    return jax.process_index()


def gather(value: Any) -> list:
    """Every process's value (what JSON can hold), in their order. All must call it, in the same order."""
    connection = client()
    if connection is None:
        return [value]
    import jax

    key, pause = f"elf/{next(_exchanges)}/", 0.005
    connection.key_value_set(f"{key}{this_process()}", json.dumps(value))
    while True:  # polled, so that a signal is heard and no time-out is needed: watch.py ends what waits for the dead
        found = {int(name.rsplit("/", 1)[1]): text for name, text in connection.key_value_dir_get(key)}
        if len(found) == jax.process_count():
            return [json.loads(found[process]) for process in range(len(found))]
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def barrier() -> None:
    """Waits until all processes are here."""
    gather(None)


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Process 0 does the block alone, the others after it: they find what it made or downloaded."""
    first = this_process() == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


class SharedError(ElfError):
    """An error that was raised in all processes at the same place, so that they may go on together."""

    def __init__(self, text: str, exit_code: int):
        super().__init__(text)
        self.exit_code = exit_code


def is_shared(error: ElfError) -> bool:
    return client() is None or isinstance(error, SharedError)


def by_first(compute: Callable[[], Any]) -> Any:
    """What process 0 computes (what JSON can hold), for all; its ElfError is raised in all."""
    if client() is None:
        return compute()
    value, problem = _attempt(compute) if this_process() == 0 else (None, None)
    value, problem = gather([value, problem])[0]
    if problem is not None:
        raise SharedError(*problem)
    return value


def everyone(compute: Callable[[], Any]) -> Any:
    """What this process computes; the ElfError of any process is raised in all."""
    if client() is None:
        return compute()
    value, problem = _attempt(compute)
    for process, other in enumerate(gather(problem)):
        if other is not None:
            raise SharedError(f"process {process}: {other[0]}" if process else other[0], other[1])
    return value


def _attempt(compute: Callable[[], Any]) -> tuple[Any, tuple[str, int] | None]:
    try:
        return compute(), None
    except ElfError as error:
        return None, (str(error), error.exit_code)


def require_same(what: str, value: dict) -> None:
    """InputError in all processes where one's values (what JSON can hold) are not those of process 0."""
    first, *others = gather(value)
    for process, other in enumerate(others, 1):
        names = [name for name in first if first[name] != other.get(name)]
        if names:
            raise SharedError(
                f"process {process}: {names[0]} of its {what} is {shown(other.get(names[0]))}, that of process 0 "
                f"{shown(first[names[0]])}: give the same command to every process",
                InputError.exit_code,
            )


def shown(value: Any) -> str:
    text = re.sub(r"\s+", " ", json.dumps(value))
    return text if len(text) <= 60 else text[:60] + "..."
