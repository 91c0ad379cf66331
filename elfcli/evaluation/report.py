"""How scores are told: a small table for people, a JSON file for programs."""

import json
from collections.abc import Sequence
from pathlib import Path

from elfcli.errors import InputError
from elfcli.training.run import check_output_file, write_whole


def check_paired(generated: Sequence[str], references: Sequence[str]) -> None:
    if len(generated) != len(references):
        raise InputError(f"{len(generated)} generated texts, but {len(references)} references: there must be as many")
    if not generated:
        raise InputError("no generated texts: nothing to score")


def write_result(path: Path, result: dict, overwrite: bool = False) -> None:
    """The result as JSON, whole or not at all; folders on the way are made."""
    check_output_file(path, overwrite, "--json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give another --json") from None


def table(rows: Sequence[tuple[str, float]], num_samples: int, protocol: str) -> str:
    """One aligned line per (metric, value), under a heading."""
    lines = [("metric", "value", "samples", "protocol")]
    lines += [(metric, f"{value:,.2f}", f"{num_samples:,}", protocol) for metric, value in rows]
    a, b, c = (max(len(line[place]) for line in lines) for place in range(3))
    return "\n".join(f"{metric:{a}}  {value:>{b}}  {samples:>{c}}  {rest}" for metric, value, samples, rest in lines)
