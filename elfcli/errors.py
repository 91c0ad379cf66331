"""Errors that end a command on purpose. Each message is one line: what is wrong, where, and how to fix it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class ElfError(Exception):
    """A failure of the run (exit code 1)."""

    exit_code = 1


class InputError(ElfError):
    """An error in the input or the usage, which the user can correct (exit code 2)."""

    exit_code = 2


class Stopped(ElfError):
    """The end of a run that was asked to stop and has saved its state (exit code 75, EX_TEMPFAIL: start it again)."""

    exit_code = 75


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` with the most similar name of `known`, or an empty string if none is similar."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def near_file(path: Path, others: Iterable[str] = ()) -> str:
    """Return `did_you_mean` for a missing file, among the names in its folder and `others`."""
    with suppress(OSError):
        others = [*(entry.name for entry in path.parent.iterdir()), *others]
    return did_you_mean(path.name, others)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for one-line messages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
