"""Finds text files and reads their lines: compression, encodings, byte-order marks."""

import bz2
import codecs
import glob
import gzip
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elfcli.errors import InputError, first_line, near_file

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".xz", ".bz2", ".zst")
QUOTINGS = ("csv", "none")
MARK = "\ufeff"
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
"""Byte-order marks of other encodings than UTF-8. That of UTF-32 begins with that of UTF-16."""


@dataclass(frozen=True)
class Layout:
    """How text files are laid out. separator: of columns (by default a comma in .csv, a tab in .tsv). quoting: `csv` or
    `none` (by default that of .csv, none in others). header: whether the first line names the columns, which are
    otherwise called 1, 2, ... encoding: None is UTF-8. keep_space: keep the space around lines of .txt."""

    separator: str | None = None
    quoting: str | None = None
    header: bool = True
    encoding: str | None = None
    keep_space: bool = False

    @property
    def of_tables(self) -> bool:
        """Return whether options of tables are set."""
        return self.separator is not None or self.quoting is not None or not self.header


DEFAULT_LAYOUT = Layout()


def layout_of(separator: str | None, quoting: str | None, no_header: bool, encoding: str | None) -> Layout:
    """Return the layout that options describe. Raises InputError for wrong values."""
    if separator is not None:
        separator = {"tab": "\t", "\\t": "\t"}.get(separator, separator)
        if len(separator) != 1 or separator in '"\r\n':
            raise InputError(f"--separator {separator!r}: expected one character, such as ';', or tab")
    if quoting not in (None, *QUOTINGS):
        raise InputError(f"--quoting {quoting}: expected {' or '.join(QUOTINGS)}")
    if encoding is not None:
        try:
            "".encode(encoding)
        except LookupError:
            raise InputError(f"--encoding {encoding}: unknown; examples are utf-16, cp1252, shift_jis") from None
        encoding = None if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig") else encoding
    return Layout(separator, quoting, not no_header, encoding)


@dataclass
class Reading:
    """Progress in a corpus, and whether bad documents are skipped. has_options: whether the command has the options of
    a layout, which errors then name. notes: counts of what is not a document of its own, such as blank lines."""

    skip_bad: bool = False
    bad: int = 0
    documents: int = 0
    bytes_done: int = 0
    advice: str = " (fix it, or pass --skip-bad to skip such lines)"
    layout: Layout = DEFAULT_LAYOUT
    has_options: bool = True
    notes: Counter[str] = field(default_factory=Counter)

    def option(self, text: str) -> str:
        """Return `; text`, which names an option of the layout, or nothing if the command has no such options."""
        return f"; {text}" if self.has_options else ""

    def reject(self, where: str, what: str) -> None:
        """Count a bad document, or raise InputError if bad documents are not skipped."""
        if not self.skip_bad:
            raise InputError(f"{where}: {what}{self.advice}")
        self.bad += 1


def without_compression(path: Path) -> str:
    """Return a file's name in lower case, without the ending of its compression."""
    name = path.name.lower()
    return name.removesuffix(path.suffix.lower()) if path.suffix.lower() in COMPRESSED else name


def file_format(path: Path) -> str:
    """Return the ending of a file's name without that of its compression. Raises InputError if it is unknown."""
    name = without_compression(path)
    ending = Path(name).suffix
    if ending not in FORMATS or (ending == ".parquet" and name != path.name.lower()):
        raise InputError(f"{path}: unknown format '{path.suffix}': use {', '.join(FORMATS)} (text formats also as "
                         f"{', '.join(COMPRESSED)}; for two files of lines, --source and --target)")  # fmt: skip
    return ending


def find_files(patterns: list[str], any_format: bool = False) -> list[Path]:
    """Return the files of paths and globs without duplicates. Raises InputError if a pattern matches nothing."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise InputError(f"{pattern} is a folder: name its files, e.g. '{path / '*.jsonl'}'")
        candidates = [path] if path.exists() else map(Path, sorted(glob.glob(str(path), recursive=True)))
        matches = [match for match in candidates if match.is_file()]
        if not matches:
            hub = (
                f" (a data set of the Hub is named with its split: {pattern}:train)" if pattern.count("/") == 1 else ""
            )
            raise InputError(f"No file {pattern}{near_file(path) or hub}")
        files.update(dict.fromkeys(matches))
    for path in () if any_format else files:
        file_format(path)
    return list(files)


def decompressed(path: Path, raw: Any) -> Any:
    """Return the decompressed bytes of an open file as a binary file."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if ending == ".xz":
        return lzma.LZMAFile(raw)
    if ending == ".bz2":
        return bz2.BZ2File(raw)
    if ending == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw), "zstd"))
    return raw


@contextmanager
def readable(path: Path, place: list[int]) -> Iterator[Any]:
    """Turn errors of reading into InputErrors. place: the number of the last line that was read."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:  # an error of zstd is an OSError, too
        raise InputError(f"{path}:{place[0] + 1}: cannot be read: {error}") from error


def text_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Yield numbered lines, without those that are not UTF-8. Raises InputError for binary files."""
    start, place = reading.bytes_done, [0]
    with readable(path, place), path.open("rb") as raw:
        lines = decompressed(path, raw)
        if reading.layout.encoding:
            lines = io.TextIOWrapper(lines, reading.layout.encoding, newline="\n")
        try:
            for number, line in enumerate(lines, 1):
                place[0] = number
                if raw.seekable():  # a pipe has no position
                    reading.bytes_done = start + raw.tell()
                if isinstance(line, bytes):
                    text = utf8(path, number, line, reading)
                else:
                    text = line
                if text is None:
                    continue
                if text.startswith(MARK):
                    text = text.lstrip(MARK)
                    reading.notes["byte-order marks removed"] += number > 1
                yield number, text
        except UnicodeError as error:
            raise InputError(f"{path}:{place[0] + 1}: not {reading.layout.encoding}: {first_line(error)}") from error


def utf8(path: Path, number: int, line: bytes, reading: Reading) -> str | None:
    """Return a line as text, None if it is not UTF-8. Raises InputError for binary files and other encodings."""
    if number == 1:
        for mark, encoding in MARKS.items():
            if line.startswith(mark):
                advice = reading.option(f"pass --encoding {encoding}")
                raise InputError(f"{path}:1: begins with the byte-order mark of {encoding.upper()}{advice}")
    if b"\0" in line:
        half = {0: "utf-16-be", 1: "utf-16-le"}.get(line.index(b"\0")) if number == 1 else None
        advice = reading.option(f"if it is UTF-16, pass --encoding {half}") if half else ""
        raise InputError(f"{path}:{number}: contains a zero byte; the file looks binary, not text{advice}")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        advice = reading.option("--encoding reads another, such as cp1252")
        reading.reject(f"{path}:{number}", f"not UTF-8 at byte {error.start + 1}{advice}")
        return None


def count_lines(path: Path, encoding: str | None) -> int:
    """Return the number of lines of a file."""
    with readable(path, [0]), path.open("rb") as raw:
        lines = decompressed(path, raw)
        if encoding is None:
            return sum(1 for _ in lines)
        return sum(1 for _ in io.TextIOWrapper(lines, encoding, errors="replace", newline="\n"))


def only_a_mark(path: Path) -> bool:
    """Return whether a file holds a byte-order mark and nothing else."""
    with path.open("rb") as file:
        return file.read(5).strip() in (codecs.BOM_UTF8, *MARKS)
