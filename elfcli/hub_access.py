"""Access to the Hub: whether it can be reached, retries after temporary failures, one wording of failures."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from elfcli.errors import InputError, first_line

T = TypeVar("T")
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts."""


def hub_reachable() -> bool:
    """Return whether the Hub answers at all. Call this first, because the Hub client retries for half a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        return False
    return True


def looks_like_a_path(name: str) -> bool:
    """Return whether a name means a local file or folder rather than a Hub repository."""
    marked = name.startswith((".", "/", "~")) or name.endswith("/") or "\\" in name
    return marked or name.count("/") > 1 or Path(name).exists()


def is_local(data: str | None) -> bool:
    """Return whether data is a folder that is here."""
    return data is not None and Path(data).expanduser().is_dir()


@contextmanager
def from_hub(what: str, advice: str = "") -> Iterator[None]:
    """Turn any error of the Hub client into an InputError of one line, which ends with the advice."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the client raises its own, HTTP's and the file system's errors
        raise InputError(f"{what} cannot be fetched from the Hub ({first_line(error)}){advice}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error or of what caused it."""
    statuses = (getattr(getattr(cause, "response", None), "status_code", None) for cause in _causes(error))
    return next((status for status in statuses if status is not None), None)


def may_pass(error: BaseException) -> bool:
    """Return whether the next attempt may succeed: after a server's 5xx, too many requests, a broken connection."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    broken = (ConnectionError, TimeoutError)
    return any(type(cause).__module__.startswith("httpx") or isinstance(cause, broken) for cause in _causes(error))


def retrying(
    action: Callable[[], T], report: Callable[[str], None] = lambda line: None, waits: Sequence[float] = WAITS
) -> T:
    """Return the action's result. Try again after an error that may pass, and report each retry in one line."""
    for wait in waits:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
            report(f"the Hub failed ({first_line(error)}); trying again in {wait:g} s")
            time.sleep(wait)
    return action()
