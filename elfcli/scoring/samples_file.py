"""Samples files, the references to score them by, and scores. Errors say `file:line: what`."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from elfcli.corpus.readers import FORMATS, Reading, Record, json_records, records, text_lines
from elfcli.errors import InputError, did_you_mean, near_file
from elfcli.outputs import write_output
from elfcli.ui.progress import say

SOURCE_KEYS, REFERENCE_KEYS = ("input", "source"), ("reference", "output", "target")
MAX_MISMATCHED, SAME_START = 0.1, 20
"""The share of samples whose source may be unlike that of their reference; letters after which two sources that begin
alike count as one."""
STDIN = Path("/dev/stdin")
T = TypeVar("T")
Numbered = list[tuple[int, Record]]


class Strict(Reading):
    """Every bad line is an error: a score of a part of the samples would be another score."""

    def reject(self, where: str, what: str) -> None:
        raise InputError(f"{where}: {what}")


def read_jsonl(path: Path) -> list[dict]:
    """The objects of a JSON lines file (UTF-8, also as .gz), empty lines skipped; InputError for anything else."""
    return [record for _, record in numbered_records(path)]


def numbered_records(path: Path) -> Numbered:
    """(line number, object) of each line that is not empty."""
    check_is_file(path)
    records = list(json_records(path, Strict()))
    if not records:
        raise InputError(f"{path}: no lines in it; expected one JSON object per line")
    return records


def has_columns(path: Path) -> bool:
    """Whether the file's name says JSON lines, CSV, TSV or Parquet; files of any other name are plain lines."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in set(FORMATS) - {".txt"}


def records_of(path: Path) -> Iterator[tuple[int, Record]]:
    """(line or row number, columns) of each record of a file in any format; a plain line is one with a `text`.

    `-`: standard input, JSON lines or plain lines. InputError `file:line: what` for bad lines.
    """
    if path == Path("-"):
        lines = list(text_lines(STDIN, Strict()))
        if any(line.strip() for _, line in lines) and next(line for _, line in lines if line.strip())[0] == "{":
            yield from json_records(STDIN, Strict(), lines)
        else:
            yield from plain_records(lines)
        return
    check_is_file(path)
    yield from records(path, Strict()) if has_columns(path) else plain_records(text_lines(path, Strict()))


def plain_records(lines) -> Iterator[tuple[int, Record]]:
    return ((number, {"text": line.rstrip("\r\n")}) for number, line in lines)


def check_is_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: a folder; give a file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file{near_file(path)}")


def read_samples(path: Path, need: Sequence[str] = ("generated",)) -> list[dict]:
    """Lines of a samples file, with a text under each of the keys `need`, and an `id` (from 0 where none is given)."""
    return [{"id": place} | row for place, (_, row) in enumerate(numbered_samples(path, need))]


def numbered_samples(path: Path, need: Sequence[str]) -> Numbered:
    rows = numbered_records(path)
    for number, row in rows:
        for key in need:
            check_row_text(row, key, f"{path}:{number}")
    check_unique_ids(rows, path)
    return rows


def check_unique_ids(rows: Numbered, path: Path) -> None:
    """InputError where one id stands for two sources or references: samples of two files or splits in one."""
    known: dict[str, tuple[int, Record]] = {}
    for number, row in rows:
        before, other = known.setdefault(str(row["id"]), (number, row)) if "id" in row else (number, row)
        for keys in (SOURCE_KEYS, ("reference",)):
            ours, theirs = first_of_keys(row, keys), first_of_keys(other, keys)
            if ours is not None and theirs is not None and ours != theirs:
                raise InputError(f"{path}:{number}: id {row['id']!r} is that of line {before}, which has another "
                                 f"{keys[0]}: samples of two splits or files; score each alone")  # fmt: skip


def first_of_keys(row: dict, keys: Sequence[str]) -> Any:
    """The row's value under the first of the keys that it has."""
    return next((row[key] for key in keys if key in row), None)


def check_row_text(row: dict, key: str, where: str) -> None:
    if key not in row:
        found = f"its keys are {', '.join(row) or 'none'}"
        mend = "; --references FILE may hold them instead" if key == "reference" else ""
        raise InputError(f"{where}: no '{key}'{did_you_mean(key, row)}; {found}{mend}")
    text = row[key]
    if not isinstance(text, str):
        raise InputError(f"{where}: '{key}' holds {type(text).__name__}, not a string")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{where}: '{key}' holds half a surrogate pair")


def read_pairs(path: Path, references: Path | None = None, key: str | None = None) -> tuple[list[str], list[str]]:
    """(generated, references), one of each per sample; references from the samples file or from one of their own.

    A file of references is JSON lines, CSV, TSV or Parquet with the column `key`, by default `reference`, `output` or
    `target`, matched by `id` where both files have the same ids, else by line order; or plain text, a line each.
    """
    if key is not None and (references is None or not has_columns(references)):
        what = "no --references" if references is None else f"{references} is read as plain lines"
        raise InputError(f"--reference-key names a column of the references, but there is {what}: give JSON lines, "
                         "CSV, TSV or Parquet with --references")  # fmt: skip
    samples = numbered_samples(path, ("generated",) if references else ("generated", "reference"))
    generated = [row["generated"] for _, row in samples]
    if references is None:
        return generated, [row["reference"] for _, row in samples]
    rows = list(records_of(references))
    if not has_columns(references):
        return generated, by_order([row["text"] for _, row in rows], len(samples), path, references)
    if not rows:
        raise InputError(f"{references}: no references in it")
    for number, row in rows:
        reference_text(row, f"{references}:{number}", key)
    by_id = rows_by_id(rows, references)
    known = ["id" in row and str(row["id"]) in by_id for _, row in samples]
    if not any(known):
        matched = by_order(rows, len(samples), path, references)
        if by_id and any("id" in row for _, row in samples):
            say(f"warning: {references} has none of the ids of {path}; matched by line order")
    elif not all(known):
        number, row = samples[known.index(False)]
        raise InputError(f"{path}:{number}: no reference with id {row.get('id')!r} in {references}")
    else:
        matched = [by_id[str(row["id"])] for _, row in samples]
    check_sources(samples, matched, path, references)
    return generated, [reference_text(row, f"{references}:{number}", key) for number, row in matched]


def check_sources(samples: Numbered, matched: Numbered, path: Path, references: Path) -> None:
    """InputError where samples and the references that they were matched with are of other sources."""
    pairs = [(number, there, first_of_keys(row, SOURCE_KEYS), first_of_keys(other, SOURCE_KEYS))
             for (number, row), (there, other) in zip(samples, matched, strict=True)]  # fmt: skip
    pairs = [pair for pair in pairs if isinstance(pair[2], str) and isinstance(pair[3], str)]
    unlike = [(number, there) for number, there, ours, theirs in pairs if not alike(ours, theirs)]
    if len(unlike) > MAX_MISMATCHED * len(pairs):
        number, there = unlike[0]
        raise InputError(f"{path}:{number}: its source is not that of {references}:{there}, and so for {len(unlike)} "
                         f"of {len(pairs)} samples: are the references of another split?")  # fmt: skip


def alike(ours: str, theirs: str) -> bool:
    """Whether two texts may be one source. Samples may hold it as decoded from tokens: cut, with other spaces, without
    rare words."""
    start, other = ("".join(text.lower().split())[:SAME_START] for text in (ours, theirs))
    words = set(ours.lower().split())
    return start == other or len(words & set(theirs.lower().split())) >= max(len(words) / 2, 1)


def read_real(path: Path, count: int, key: str | None = None) -> list[str]:
    """The first `count` texts of a file of references, which need not belong to the samples."""
    found = [
        row["text"] if list(row) == ["text"] and key is None else reference_text(row, f"{path}:{number}", key)
        for number, row in islice(records_of(path), count)
    ]
    if not found:
        raise InputError(f"{path}: no references in it")
    return found


def reference_text(row: dict, where: str, key: str | None = None) -> str:
    key = key or next((key for key in REFERENCE_KEYS if key in row), None)
    if key is None:
        found = f"its keys are {', '.join(row) or 'none'}"
        raise InputError(f"{where}: none of {', '.join(map(repr, REFERENCE_KEYS))}; {found}; name one, --reference-key")
    check_row_text(row, key, where)
    return row[key]


def rows_by_id(rows: Numbered, path: Path) -> dict[str, tuple[int, Record]]:
    """Numbered references by id; empty where no row has one."""
    found: dict[str, tuple[int, Record]] = {}
    for number, row in rows:
        if "id" not in row and not found:
            continue
        if "id" not in row:
            raise InputError(f"{path}:{number}: no 'id', but lines before it have one")
        if str(row["id"]) in found:
            raise InputError(f"{path}:{number}: id {row['id']!r} is there twice")
        found[str(row["id"])] = number, row
    if found and len(found) < len(rows):
        raise InputError(f"{path}:{rows[0][0]}: no 'id', but other lines have one")
    return found


def by_order(texts: list[T], wanted: int, path: Path, references: Path) -> list[T]:
    """The references as they stand; InputError where they are not as many as the samples."""
    if len(texts) != wanted:
        raise InputError(
            f"{references}: {len(texts)} references for the {wanted} samples of {path}; without common ids they are "
            "matched by line order, so there must be as many"
        )
    return texts


def write_samples(path: Path, rows: list[dict], overwrite: bool = False) -> None:
    """The samples as JSONL, whole or not at all."""
    write_output(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), overwrite)
