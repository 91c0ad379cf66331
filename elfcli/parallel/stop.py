"""Stop requests: at the first SIGTERM or SIGINT the run finishes its step, saves and exits; a second one ends it."""

import itertools
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.parallel.agree import leave
from elfcli.ui.progress import is_first_process, say


@contextmanager
def stop_requests(notice: Callable[[], str]) -> Iterator[Callable[[], str | None]]:
    """Yield `requested()`, which returns the name of the first signal received, or None (always, outside the main
    thread). A watcher thread prints `notice()` at the first and ends the process at the second, even while the main
    thread waits."""
    received: list[str] = []
    if current_thread() is not main_thread():
        yield lambda: None
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        for count in itertools.count(1):
            if not (number := ours.recv(1)):
                return
            name = signal.Signals(number[0]).name
            if count > 1:
                leave(f"{name} again: exiting without saving", 128 + number[0])
            received.append(name)
            say(f"{name}: {notice()}")

    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield lambda: received[0] if received else None
    finally:
        signal.set_wakeup_fd(fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        theirs.close()
        watcher.join()
        ours.close()


TIME, TIME_CODE = "time to save", 1  # a lower number than SIGINT and SIGTERM, which take precedence


def requested_anywhere(requested: Callable[[], str | None], timer: Callable[[], bool]) -> Callable[[], str | None]:
    """Return a function that gives `requested()`, else TIME if `timer` is due: with several processes that of any, in
    all at the same call, one call late: the all-reduce of call n is read at call n + 1, so that no step waits for
    it."""
    if jax.process_count() == 1:
        return lambda: requested() or (TIME if timer() else None)
    mesh = Mesh(np.asarray(jax.devices()), ("all",))
    by_device, everywhere = NamedSharding(mesh, PartitionSpec("all")), NamedSharding(mesh, PartitionSpec())
    highest = jax.jit(jnp.max, out_shardings=everywhere)
    before: jax.Array | None = None

    def anywhere() -> str | None:
        nonlocal before
        name, time_is_up = requested(), is_first_process() and timer()
        code = signal.Signals[name] if name else TIME_CODE if time_is_up else 0
        flags = np.full(jax.local_device_count(), code, np.int32)
        last, before = before, highest(jax.make_array_from_process_local_data(by_device, flags))
        number = int(last) if last is not None else 0
        return TIME if number == TIME_CODE else signal.Signals(number).name if number else None

    return anywhere
