"""Errors that end a command on purpose; each message is one line that says what, where and how to mend it."""

from contextlib import suppress
from pathlib import Path


class ElfError(Exception):
    """The run failed (exit code 1)."""

    exit_code = 1


class InputError(ElfError):
    """The user's input or usage is wrong (exit code 2); the user can correct it."""

    exit_code = 2


class Stopped(ElfError):
    """The run was asked to stop and has saved its state (exit code 75, EX_TEMPFAIL: start it again)."""

    exit_code = 75


def did_you_mean(name: str, known) -> str:
    """` (did you mean 'x'?)` for the nearest of `known`, or an empty string when nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def near_file(path: Path, others=()) -> str:
    """`did_you_mean` for a missing file, among the names beside it and `others`."""
    with suppress(OSError):
        others = [*(entry.name for entry in path.parent.iterdir()), *others]
    return did_you_mean(path.name, others)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for one-line messages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
