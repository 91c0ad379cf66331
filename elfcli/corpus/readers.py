"""Reads text, JSON lines, CSV, TSV (each also compressed) and Parquet files, and pairs of text files, one document at a
time. A bad document raises InputError `file:line: what`; with `skip_bad` it is counted and skipped."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from elfcli.corpus.files import (
    DEFAULT_LAYOUT,
    FORMATS,
    Layout,
    Reading,
    count_lines,
    file_format,
    find_files,
    only_a_mark,
    text_lines,
    without_compression,
)
from elfcli.errors import InputError, did_you_mean, first_line
from elfcli.ui.progress import say

DEFAULT_KEYS = (("text",), ("input", "output"), ("input", "reference"), ("source", "target"))
PARALLEL_KEYS = ("source", "target")
ANKI = re.compile(r"#[a-z ]+:")
"""First lines of files that Anki exports, such as `#separator:tab`."""
TABS_SEEN = 100
"""Lines of a .txt that are searched for tabs."""

Record = dict[str, Any]
Keys = tuple[str, ...]
"""Columns to read: one for text, two (source, target) for pairs, none to detect them in the first record."""


def requested_keys(text_key: str | None, source_key: str | None, target_key: str | None) -> Keys:
    """Return the keys that the user named. Raises InputError if they contradict each other."""
    if text_key and (source_key or target_key):
        raise InputError("--text-key is for text, --source-key and --target-key are for pairs: use one or the other")
    if bool(source_key) != bool(target_key):
        raise InputError("--source-key and --target-key belong together: pass both")
    return tuple(key for key in (text_key, source_key, target_key) if key)


def chosen_keys(keys: Keys, columns: list[str], where: str, hint: str = "") -> Keys:
    """Return the requested keys, or the default keys in the first record. Raises InputError if keys are missing."""
    found = f"its columns are {', '.join(columns) or 'none'}{hint}"
    for name in keys:
        if name not in columns:
            raise InputError(f"{where} has no column '{name}'{did_you_mean(name, columns)}: {found}")
    for names in (keys,) if keys else DEFAULT_KEYS:
        if set(names) <= set(columns):
            return names
    raise InputError(f"{where} has neither 'text' nor 'input' and 'output': {found}; pass --text-key or --source-key")


def table_hint(path: Path, columns: list[str], layout: Layout) -> str:
    """Return what else the columns of a CSV or TSV file may mean, and which option reads it."""
    if Path(without_compression(path)).suffix not in (".csv", ".tsv", ".txt") or not layout.header:
        return ""
    if len(columns) == 1:
        for separator, shown in ((";", "';'"), ("\t", "tab"), ("|", "'|'"), (",", "','")):
            if separator in columns[0]:
                return f"; if {shown} separates columns, pass --separator {shown}"
    if any(re.search(r"\s|[.?!]$|^\W*\d", name.strip()) or len(name) > 30 for name in columns):
        numbers = "--text-key 1" if len(columns) == 1 else "--source-key 1 --target-key 2"
        return f", which look like data; if the file has no header, pass --no-header and columns by number: {numbers}"
    return "; if this line is data, pass --no-header"


def flat(record: Record) -> Record:
    """Return a record with `a.b` for the field b of an object a."""
    if not any(isinstance(value, dict) for value in record.values()):
        return record
    fields: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            fields |= {f"{name}.{inner}": field for inner, field in flat(value).items()}
        else:
            fields[name] = value
    return fields


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


def quoted_rows(path: Path, reading: Reading, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table with quoting, with the number of their first line; a field may hold line breaks."""
    csv.field_size_limit(2**31 - 1)
    line = 0

    def lines() -> Iterator[str]:
        nonlocal line
        for line, text in text_lines(path, reading):  # noqa: B007
            yield text

    rows = csv.reader(lines(), delimiter=separator, strict=True)
    while True:
        first = line + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            kind = without_compression(path).rpartition(".")[2].upper()
            advice = reading.option("--quoting none reads quotes as characters")
            reading.reject(f"{path}:{first}", f"not {kind}: {error}{advice}")
            continue
        if line > first:
            reading.notes["lines inside quoted fields"] += line - first
        yield first, row


def plain_rows(path: Path, reading: Reading, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the numbered rows of a table without quoting: each is one line, and quotes are characters."""
    for number, text in text_lines(path, reading):
        row = text.rstrip("\r\n").split(separator)
        if '"' in text and any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in row):
            reading.notes['rows with a field in "...", whose quotes are kept (--quoting csv removes them)'] += 1
        yield number, [] if row == [""] else row


def table_records(path: Path, reading: Reading) -> Iterator[tuple[int, Record]]:
    """Yield the records of a CSV or TSV file with the number of their first line."""
    layout, commas = reading.layout, file_format(path) == ".csv"
    quoting = layout.quoting or ("csv" if commas else "none")
    rows = quoted_rows if quoting == "csv" else plain_rows
    header: list[str] = []
    where = "header" if layout.header else "first row"
    for first, row in rows(path, reading, layout.separator or ("," if commas else "\t")):
        if not row:
            reading.notes["blank lines"] += 1
        elif not header and len(row) == 1 and ANKI.match(row[0]):
            reading.notes["lines such as #html:true, which Anki writes"] += 1
        elif not header and layout.header:
            header = [f"{name} ({row[: place + 1].count(name)})" if row.count(name) > 1 else name
                      for place, name in enumerate(row)]  # fmt: skip
        elif header and len(row) != len(header):
            quotes = quoting == "none" and any(cell.startswith('"') for cell in row)
            hint = reading.option("if its fields are quoted, pass --quoting csv") if quotes else ""
            reading.reject(f"{path}:{first}", f"{len(row)} fields, but the {where} has {len(header)}{hint}")
        else:
            header = header or [str(number) for number in range(1, len(row) + 1)]
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
    """Return an iterator over (line or row number from 1, columns) of each record; blank lines are skipped. The field b
    of an object a is the column `a.b`."""
    ending = file_format(path)
    if ending in (".csv", ".tsv") or (ending == ".txt" and reading.layout.of_tables):
        return table_records(path, reading)
    if reading.layout.of_tables:
        raise InputError(f"{path}: --separator, --quoting and --no-header are for CSV, TSV and text files")
    if ending == ".parquet":
        return ((number, flat(record)) for number, record in parquet_records(path, reading))
    if ending in (".json", ".jsonl"):
        return ((number, flat(record)) for number, record in json_records(path, reading))
    return line_records(path, reading)


def line_records(path: Path, reading: Reading) -> Iterator[tuple[int, Record]]:
    """Yield the lines of a text file as records with the column `text`."""
    for number, line in text_lines(path, reading):
        if text := line.strip():
            yield number, {"text": line.rstrip("\r\n") if reading.layout.keep_space else text}
        else:
            reading.notes["blank lines"] += 1


def parallel_records(source: Path, target: Path, reading: Reading) -> Iterator[tuple[int, Record]]:
    """Yield the pairs of lines of two files with their number. A line that is not text in one file has no pair."""
    aside = replace(reading, bad=0, bytes_done=0)
    theirs = text_lines(target, aside)
    other, text = 0, ""
    for number, line in text_lines(source, reading):
        while other < number and (found := next(theirs, None)):
            other, text = found
        if other != number:
            continue
        if line.strip() or text.strip():
            texts = [one.rstrip("\r\n") if reading.layout.keep_space else one.strip() for one in (line, text)]
            yield number, dict(zip(PARALLEL_KEYS, texts, strict=True))
        else:
            reading.notes["blank lines"] += 1
    reading.bad += aside.bad


@dataclass
class Corpus:
    """Documents of files as tuples of texts: (text,) or (source, target). Each iteration reads the files again.
    targets: the files that belong to `files`, line by line; none for other data."""

    files: list[Path]
    keys: Keys
    reading: Reading = field(default_factory=Reading)
    targets: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        self.reading = reading = replace(self.reading, bad=0, documents=0, bytes_done=0, notes=Counter())
        pairs = [
            (path, parallel_records(path, other, reading))
            for path, other in zip(self.files, self.targets, strict=False)
        ]
        for path, found in pairs or [(path, records(path, reading)) for path in self.files]:
            start = reading.bytes_done
            for number, record in found:
                texts = tuple(record.get(name) for name in self.keys)
                if problem := what_is_wrong(self.keys, texts, list(record)):
                    reading.reject(f"{path}:{number}", problem)
                else:
                    reading.documents += 1
                    yield texts  # type: ignore[misc]
            reading.bytes_done = start + path.stat().st_size
        if not reading.documents:
            raise InputError(f"No documents in {', '.join(map(str, self.files))} ({reading.bad} bad lines)")

    @property
    def size(self) -> int:
        """Return the bytes of the files that are read one after another."""
        return sum(path.stat().st_size for path in self.files)

    def keep_space(self) -> None:
        """Keep the space around lines of text files from the next iteration on."""
        self.reading = replace(self.reading, layout=replace(self.reading.layout, keep_space=True))


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


def open_corpus(patterns: list[str], keys: Keys, skip_bad: bool, layout: Layout = DEFAULT_LAYOUT) -> Corpus:
    """Return the corpus of the files, with keys from the first record that can be read."""
    files = find_files(patterns)
    warn_of_tabs(files, layout)
    for path in files:
        for number, record in records(path, Reading(skip_bad, layout=layout)):
            columns = list(record)
            if not (keys or layout.header or len(columns) > 2):
                keys = tuple(columns)
            keys = chosen_keys(keys, columns, f"{path}:{number}", table_hint(path, columns, layout))
            return Corpus(files, keys, Reading(skip_bad, layout=layout))
    if marked := next(filter(only_a_mark, files), None):
        raise InputError(f"No documents: {marked} holds a byte-order mark and nothing else")
    raise InputError(f"No documents in {', '.join(map(str, files))}: the files are empty")


def warn_of_tabs(files: Iterable[Path], layout: Layout = DEFAULT_LAYOUT) -> None:
    """Report text files whose first lines all hold tabs, because they are probably tables."""
    for path in files:
        if file_format(path) == ".txt" and not layout.of_tables:
            lines = islice(text_lines(path, Reading(True, layout=layout)), TABS_SEEN)
            tabs = [line.rstrip("\r\n").count("\t") for _, line in lines if line.strip() and not ANKI.match(line)]
            if tabs and (fewest := min(tabs)):
                say(f"warning: {path}: each line is one text, but all hold tabs; if they are {fewest + 1} columns, "
                    "pass --separator tab --no-header and name two, such as --source-key 1 --target-key 2")  # fmt: skip


def open_parallel(sources: list[str], targets: list[str], skip_bad: bool, layout: Layout = DEFAULT_LAYOUT) -> Corpus:
    """Return the corpus of files that belong together, line by line. Raises InputError if their numbers differ."""
    files, others = find_files(sources, any_format=True), find_files(targets, any_format=True)
    if len(files) != len(others):
        raise InputError(f"--source names {len(files)} files, but --target {len(others)}: each needs its counterpart")
    for path in (*files, *others):
        if Path(without_compression(path)).suffix in set(FORMATS) - {".txt"}:
            raise InputError(f"{path}: --source and --target read lines; pass it as --input, with --source-key")
    for path, other in zip(files, others, strict=True):
        ours, theirs = count_lines(path, layout.encoding), count_lines(other, layout.encoding)
        if ours != theirs:
            raise InputError(f"{path} has {ours:,} lines, but {other} has {theirs:,}: they must be as many")
    return Corpus(files, PARALLEL_KEYS, Reading(skip_bad, layout=layout), others)
