"""Agreement between processes (one per host): exchange values, raise the same error, take the same decision. Values are
exchanged through the key-value store of JAX's coordinator, which needs no devices. A single process exchanges
nothing."""

import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from elfcli.errors import ElfError, InputError

_exchanges = itertools.count()


def leave(text: str, code: int = 1) -> NoReturn:
    """Print one line and end this process at once, from any thread."""
    from elfcli.ui.progress import console

    if console.is_terminal:
        console.show_cursor(True)
    if text:
        print(f"error: {text}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def client() -> Any:
    """Return JAX's connection to the coordinator, None for a single process."""
    if "jax" not in sys.modules:
        return None
    from jax._src.distributed import global_state  # the key-value store has no public name

    return global_state.client if (global_state.num_processes or 1) > 1 else None


def this_process() -> int:
    """Return the number of this process."""
    if client() is None:
        return 0
    import jax

    return jax.process_index()


def gather(value: Any) -> list:
    """Return the values (JSON) of all processes, in their order. All must call it, in the same sequence of calls."""
    if (connection := client()) is None:
        return [value]
    import jax

    key, pause = f"elf/{next(_exchanges)}/", 0.005
    connection.key_value_set(f"{key}{this_process()}", json.dumps(value))
    # Polled, so that Python handles signals meanwhile. No time-out: if a peer dies, watch.py ends this process.
    while True:
        values = by_process(connection, key)
        if len(values) == jax.process_count():
            return [json.loads(values[process]) for process in range(len(values))]
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def by_process(connection: Any, key: str) -> dict[int, str]:
    """Return the values below a key of the store by the process that wrote them."""
    return {int(name.rsplit("/", 1)[1]): text for name, text in connection.key_value_dir_get(key)}


def barrier() -> None:
    """Wait until all processes have called it."""
    gather(None)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Run the block in process 0 first, then in the others, which find the files that it made or downloaded."""
    first = this_process() == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


def same_version(load: Callable[[Any], Any], version_of: Callable[[Any], Any], asked: Any) -> Any:
    """Return `load(asked)` in process 0, and the same version in the others. `asked` may mean the newest checkpoint of
    a run that is still training, which can change between two processes."""
    with first_process_first():
        result = load(asked)
    version = broadcast_from_first(lambda: version_of(result))
    return result if version_of(result) == version else load(version)


class SharedError(ElfError):
    """An error that all processes raise at the same place, so that they can catch it and continue together."""

    def __init__(self, text: str, exit_code: int):
        super().__init__(text)
        self.exit_code = exit_code


def is_shared(error: Exception) -> bool:
    """Return whether all processes raised this error at the same place."""
    return client() is None or isinstance(error, SharedError)


def broadcast_from_first(compute: Callable[[], Any]) -> Any:
    """Return in all processes the value (JSON) that process 0 computes. Its ElfError is raised in all."""
    if client() is None:
        return compute()
    value, problem = gather(_attempt(compute) if this_process() == 0 else None)[0]
    if problem is not None:
        raise SharedError(*problem)
    return value


def run_on_all(compute: Callable[[], Any]) -> Any:
    """Return the value that this process computes. An ElfError of any process is raised in all."""
    if client() is None:
        return compute()
    value, problem = _attempt(compute)
    for process, other in enumerate(gather(problem)):
        if other is not None:
            raise SharedError(f"process {process}: {other[0]}" if process else other[0], other[1])
    return value


def _attempt(compute: Callable[[], Any]) -> tuple[Any, tuple[str, int] | None]:
    """Return (value, None), or (None, (message, exit code)) of an ElfError."""
    try:
        return compute(), None
    except ElfError as error:
        return None, (str(error), error.exit_code)


def assert_same_on_all(what: str, value: dict) -> None:
    """Raise an error in all processes if the values (JSON) of one differ from those of process 0."""
    first, *others = gather(value)
    for process, other in enumerate(others, 1):
        for name in first:
            if first[name] != other.get(name):
                values = f"{short_json(other.get(name))}, that of process 0 {short_json(first[name])}"
                text = f"process {process}: {name} of its {what} is {values}: run the same command in every process"
                raise SharedError(text, InputError.exit_code)


def short_json(value: Any) -> str:
    """Return the value as one line of JSON, truncated to 60 characters."""
    text = re.sub(r"\s+", " ", json.dumps(value))
    return text if len(text) <= 60 else text[:60] + "..."
