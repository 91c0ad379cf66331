"""How scores are told: a small table for people, a JSON file for programs."""

import json
from collections.abc import Sequence
from pathlib import Path

from elfcli.errors import InputError
from elfcli.training.run import write_whole


def check_paired(generated: Sequence[str], references: Sequence[str]) -> None:
    if len(generated) != len(references):
        raise InputError(f"{len(generated)} generated texts, but {len(references)} references: there must be as many")
    if not generated:
        raise InputError("no generated texts: nothing to score")


def check_result_file(path: Path | None, overwrite: bool) -> None:
    """InputError where a result could not be written later; asked before the work starts."""
    if path is None:
        return
    # A rename puts a file in the place of a link, and /dev/stdout is a link that may lead to a file.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path}: a link, a folder or a device, not a file; give another --json")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give another --json, or --overwrite")
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"{path}: {path.parent} is not a folder; give another --json")


def write_result(path: Path, result: dict, overwrite: bool = False) -> None:
    """The result as JSON, whole or not at all; folders on the way are made."""
    check_result_file(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def table(rows: Sequence[tuple[str, float]], num_samples: int, protocol: str) -> str:
    """One aligned line per (metric, value), under a heading."""
    lines = [("metric", "value", "samples", "protocol")]
    lines += [(metric, f"{value:,.2f}", f"{num_samples:,}", protocol) for metric, value in rows]
    a, b, c = (max(len(line[place]) for line in lines) for place in range(3))
    return "\n".join(f"{metric:{a}}  {value:>{b}}  {samples:>{c}}  {rest}" for metric, value, samples, rest in lines)
