"""The Hub: whether it is there, and trying again after a failure that may pass."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from elfcli.errors import first_line


def hub_reachable() -> bool:
    """Whether the Hub answers at all; asked first because the Hub client retries for half a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        return False
    return True


def looks_like_a_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~"))
        or name.endswith("/")
        or name.count("/") > 1
        or "\\" in name
        or Path(name).exists()
    )


T = TypeVar("T")


WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts."""


def status_of(error: BaseException | None) -> int | None:
    """HTTP status of an error or of what caused it."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status
        error = error.__cause__ or error.__context__
    return None


def is_passing(error: BaseException | None) -> bool:
    """Whether an error may be gone at the next attempt: a server's 5xx, too many requests, a cut connection."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    while error is not None:
        if type(error).__module__.startswith("httpx") or isinstance(error, (ConnectionError, TimeoutError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def retrying(action: Callable[[], T], report: Callable[[str], None] = lambda line: None, waits=WAITS) -> T:
    """The action's result; after a passing error it is tried again, and `report` is told."""
    for wait in (*waits, None):
        try:
            return action()
        except Exception as error:
            if wait is None or not is_passing(error):
                raise
            report(f"the Hub failed ({first_line(error)}); trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError("unreachable")
