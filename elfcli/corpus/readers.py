"""Reads text, JSON lines, CSV, TSV (each also as .gz) and Parquet files, one document at a time. A bad document raises
InputError `file:line: what`; with `skip_bad` it is counted and skipped."""

import csv
import glob
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elfcli.errors import InputError, did_you_mean, first_line, near_file

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
DEFAULT_KEYS = (("text",), ("input", "output"), ("input", "reference"), ("source", "target"))

Record = dict[str, Any]
Keys = tuple[str, ...]
"""Columns to read: one for text, two (source, target) for pairs, none to detect them in the first record."""


@dataclass
class Reading:
    """Progress in a corpus, and whether bad documents are skipped."""

    skip_bad: bool = False
    bad: int = 0
    documents: int = 0
    bytes_done: int = 0
    advice: str = " (fix it, or pass --skip-bad to skip such lines)"

    def reject(self, where: str, what: str) -> None:
        """Count a bad document, or raise InputError if bad documents are not skipped."""
        if not self.skip_bad:
            raise InputError(f"{where}: {what}{self.advice}")
        self.bad += 1


def requested_keys(text_key: str | None, source_key: str | None, target_key: str | None) -> Keys:
    """Return the keys that the user named. Raises InputError if they contradict each other."""
    if text_key and (source_key or target_key):
        raise InputError("--text-key is for text, --source-key and --target-key are for pairs: use one or the other")
    if bool(source_key) != bool(target_key):
        raise InputError("--source-key and --target-key belong together: pass both")
    return tuple(key for key in (text_key, source_key, target_key) if key)


def chosen_keys(keys: Keys, columns: list[str], where: str) -> Keys:
    """Return the requested keys, or the default keys in the first record. Raises InputError if keys are missing."""
    found = f"its columns are {', '.join(columns) or 'none'}"
    for name in keys:
        if name not in columns:
            raise InputError(f"{where} has no column '{name}'{did_you_mean(name, columns)}: {found}")
    for names in (keys,) if keys else DEFAULT_KEYS:
        if set(names) <= set(columns):
            return names
    raise InputError(f"{where} has neither 'text' nor 'input' and 'output': {found}; pass --text-key or --source-key")


def file_format(path: Path) -> str:
    """Return the ending of a file's name without `.gz`. Raises InputError if the format is unknown."""
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    if ending not in FORMATS or name.endswith(".parquet.gz"):
        raise InputError(f"{path}: unknown format '{path.suffix}': use {', '.join(FORMATS)} (text formats also as .gz)")
    return ending


def find_files(patterns: list[str]) -> list[Path]:
    """Return the files of paths and globs without duplicates. Raises InputError if a pattern matches nothing."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise InputError(f"{pattern} is a folder: name its files, e.g. '{path / '*.jsonl'}'")
        candidates = [path] if path.exists() else map(Path, sorted(glob.glob(str(path), recursive=True)))
        matches = [match for match in candidates if match.is_file()]
        if not matches:
            raise InputError(f"No file {pattern}{near_file(path)}")
        files.update(dict.fromkeys(matches))
    for path in files:
        file_format(path)
    return list(files)


def text_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Yield numbered lines, without those that are not UTF-8. Raises InputError for binary files."""
    start = reading.bytes_done
    number = 0
    try:
        with path.open("rb") as raw:
            lines = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
            for number, line in enumerate(lines, 1):
                if raw.seekable():  # a pipe has no position
                    reading.bytes_done = start + raw.tell()
                if b"\0" in line:
                    raise InputError(f"{path}:{number}: contains a zero byte; the file looks binary, not text")
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    reading.reject(f"{path}:{number}", f"not UTF-8 at byte {error.start + 1}")
                    continue
                yield number, text
    except (OSError, EOFError) as error:
        raise InputError(f"{path}:{number + 1}: cannot be read: {error}") from error


def json_records(
    path: Path, reading: Reading, lines: Iterable[tuple[int, str]] | None = None
) -> Iterator[tuple[int, Record]]:
    """Yield the records of JSON lines. lines: those of `path`, if they are already read."""
    for number, line in text_lines(path, reading) if lines is None else lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            what = str(error).split(": line")[0]
            reading.reject(f"{path}:{number}", f"not JSON: {what} at column {getattr(error, 'colno', 1)}")
            continue
        if isinstance(record, dict):
            yield number, record
        elif isinstance(record, list) and number == 1:
            raise InputError(f"{path}: one JSON list; write one object per line (JSON lines)")
        else:
            reading.reject(f"{path}:{number}", f"a JSON {type(record).__name__}, not an object")


def table_records(path: Path, reading: Reading, delimiter: str) -> Iterator[tuple[int, Record]]:
    """Yield the records of a CSV or TSV file with the number of their first line."""
    csv.field_size_limit(2**31 - 1)
    line = 0

    def lines() -> Iterator[str]:
        nonlocal line
        for line, text in text_lines(path, reading):  # noqa: B007
            yield text

    rows = csv.reader(lines(), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        first = line + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            reading.reject(f"{path}:{first}", f"not {path.suffix[1:].upper()}: {error}")
            continue
        if not header:
            header = row
        elif row and len(row) != len(header):
            reading.reject(f"{path}:{first}", f"{len(row)} fields, but the header has {len(header)}")
        elif row:
            yield first, dict(zip(header, row, strict=True))


def parquet_records(path: Path, reading: Reading) -> Iterator[tuple[int, Record]]:
    """Yield the numbered records of a Parquet file, with the column `a.b` for the field b of a struct column a."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    start, size = reading.bytes_done, path.stat().st_size
    try:
        with ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                yield from enumerate(pyarrow.Table.from_batches([batch]).flatten().to_pylist(), number + 1)
                number += len(batch)
                reading.bytes_done = start + size * number // max(file.metadata.num_rows, 1)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {first_line(error)}") from error


def records(path: Path, reading: Reading) -> Iterator[tuple[int, Record]]:
    """Return an iterator over (line or row number from 1, columns) of each record; blank lines are skipped."""
    ending = file_format(path)
    if ending in (".csv", ".tsv"):
        return table_records(path, reading, "\t" if ending == ".tsv" else ",")
    if ending == ".parquet":
        return parquet_records(path, reading)
    if ending in (".json", ".jsonl"):
        return json_records(path, reading)
    lines = text_lines(path, reading)
    return ((number, {"text": line.strip()}) for number, line in lines if line.strip())


@dataclass
class Corpus:
    """Documents of files as tuples of texts: (text,) or (source, target). Each iteration reads the files again."""

    files: list[Path]
    keys: Keys
    reading: Reading = field(default_factory=Reading)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        self.reading = reading = Reading(self.reading.skip_bad)
        for path in self.files:
            start = reading.bytes_done
            for number, record in records(path, reading):
                texts = tuple(record.get(name) for name in self.keys)
                if problem := what_is_wrong(self.keys, texts, list(record)):
                    reading.reject(f"{path}:{number}", problem)
                else:
                    reading.documents += 1
                    yield texts  # type: ignore[misc]
            reading.bytes_done = start + path.stat().st_size
        if not reading.documents:
            raise InputError(f"No documents in {', '.join(map(str, self.files))} ({reading.bad} bad lines)")


def what_is_wrong(names: Keys, texts: tuple[Any, ...], columns: list[str]) -> str | None:
    """Return the problem with a document's texts, or None."""
    for name, text in zip(names, texts, strict=True):
        if text is None:
            return f"no '{name}'{did_you_mean(name, columns) if name not in columns else ''}"
        if problem := text_problem(name, text):
            return problem
        if not text.strip():
            return f"'{name}' is empty"
    return None


def text_problem(name: str, text: Any) -> str | None:
    """Return why a column's value is not a valid string, or None."""
    if not isinstance(text, str):
        return f"'{name}' holds {type(text).__name__}, not a string"
    try:
        text.encode()
    except UnicodeEncodeError:  # nothing else cannot be encoded
        return f"'{name}' holds half a surrogate pair"
    return None


def open_corpus(patterns: list[str], keys: Keys, skip_bad: bool) -> Corpus:
    """Return the corpus of the files, with keys from the first record that can be read."""
    files = find_files(patterns)
    for path in files:
        for number, record in records(path, Reading(skip_bad)):
            return Corpus(files, chosen_keys(keys, list(record), f"{path}:{number}"), Reading(skip_bad))
    raise InputError(f"No documents in {', '.join(map(str, files))}: the files are empty")
