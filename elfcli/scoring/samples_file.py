"""Samples files, their provenance in `F.jsonl.meta.json`, and the references to score them by. Errors have the form
`file:line: what`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from elfcli.corpus.files import DEFAULT_LAYOUT, FORMATS, Layout, Reading, text_lines, without_compression
from elfcli.corpus.readers import Record, flat, json_records, records, text_problem, warn_of_tabs
from elfcli.errors import InputError, did_you_mean, near_file
from elfcli.outputs import check_output_file, write_output
from elfcli.ui.progress import say

Reference = str | list[str]
"""What a text is compared with: one reference, or several."""
SOURCE_KEYS, REFERENCE_KEYS = ("input", "source"), ("reference", "output", "target")
MAX_MISMATCHED, SAME_START = 0.1, 20
"""Share of samples whose source may differ from that of their reference; letters in which the starts of equal sources
agree."""
STDIN = Path("/dev/stdin")
Numbered = list[tuple[int, Record]]


def several(reference: Reference) -> list[str]:
    """Return a reference as a list."""
    return [reference] if isinstance(reference, str) else reference


def _strict(layout: Layout | None = None) -> Reading:
    """Return a Reading in which every bad line is an error: a score of some of the samples would be another score.

    layout: None for a command without its options.
    """
    return Reading(advice="", layout=layout or DEFAULT_LAYOUT, has_options=layout is not None)


def read_jsonl(path: Path) -> list[dict]:
    """Return the objects of a JSON lines file (UTF-8, or .gz), without empty lines. Raises InputError for others."""
    return [record for _, record in numbered_records(path)]


def numbered_records(path: Path) -> Numbered:
    """Return (line number, object) of each line that is not empty."""
    check_is_file(path)
    numbered = list(json_records(path, _strict()))
    if not numbered:
        raise InputError(f"{path}: no lines in it; expected one JSON object per line")
    return numbered


def has_columns(path: Path) -> bool:
    """Return whether the file's name is that of JSON lines, CSV, TSV or Parquet; other files are plain lines."""
    return Path(without_compression(path)).suffix in set(FORMATS) - {".txt"}


def records_of(path: Path, layout: Layout | None = None) -> Iterator[tuple[int, Record]]:
    """Yield (line or row number, columns) of each record of a file in any format; plain lines have the column `text`.
    `-`: standard input, JSON lines or plain lines. Raises InputError `file:line: what` for bad lines."""
    strict = _strict(layout)
    if path == Path("-"):
        lines: Iterable[tuple[int, str]] = list(text_lines(STDIN, strict))
        if next((line for _, line in lines if line.strip()), "").startswith("{"):
            yield from ((number, flat(record)) for number, record in json_records(STDIN, strict, lines))
            return
    else:
        check_is_file(path)
        if has_columns(path) or strict.layout.of_tables:
            yield from records(path, strict)
            return
        if layout is not None and without_compression(path).endswith(".txt"):
            warn_of_tabs([path], layout)
        lines = text_lines(path, strict)
    yield from ((number, {"text": line.rstrip("\r\n")}) for number, line in lines)


def check_is_file(path: Path) -> None:
    """Raise InputError unless there is a file at the path."""
    if path.is_dir():
        raise InputError(f"{path}: a folder; pass a file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file{near_file(path)}")


def read_samples(path: Path) -> list[dict]:
    """Return the lines of a samples file, checked as in `numbered_samples`, with an `id`, by default their index."""
    return [{"id": place} | row for place, (_, row) in enumerate(numbered_samples(path, ("generated",)))]


def numbered_samples(path: Path, need: Sequence[str]) -> Numbered:
    """Return (line number, row) of a samples file. Raises InputError unless each has a text under all keys of `need`,
    or if one id has two sources or references."""
    rows, by_id = numbered_records(path), dict[str, tuple[int, Record]]()
    for number, row in rows:
        for key in need:
            check_row_text(row, key, f"{path}:{number}")
        before, other = by_id.setdefault(str(row["id"]), (number, row)) if "id" in row else (number, row)
        for keys in (SOURCE_KEYS, ("references", "reference")):
            ours, theirs = first_of_keys(row, keys), first_of_keys(other, keys)
            if ours is not None and theirs is not None and ours != theirs:
                raise InputError(f"{path}:{number}: id {row['id']!r} is that of line {before}, which has another "
                                 f"{keys[0]}: samples of two splits or files; score each alone")  # fmt: skip
    return rows


def first_of_keys(row: dict, keys: Sequence[str]) -> Any:
    """Return the row's value under the first of the keys that it has, None without one."""
    return next((row[key] for key in keys if key in row), None)


def reference_under(row: dict, key: str, where: str) -> Reference:
    """Return the row's text under a key, or its list of texts. Raises InputError unless all are valid strings."""
    texts = row.get(key)
    if not isinstance(texts, list):
        check_row_text(row, key, where)
        return row[key]
    if not texts:
        raise InputError(f"{where}: {key!r} is an empty list; expected one reference or several")
    for text in texts:
        check_row_text({key: text}, key, where)
    return texts


def check_row_text(row: dict, key: str, where: str) -> None:
    """Raise InputError unless the row has a valid string under the key."""
    if key not in row:
        fix = "; --references FILE may hold them instead" if key == "reference" else ""
        raise InputError(f"{where}: no '{key}'{did_you_mean(key, row)}; its keys are {', '.join(row) or 'none'}{fix}")
    if problem := text_problem(key, row[key]):
        raise InputError(f"{where}: {problem}")


def read_pairs(path: Path, references: Path | None = None, key: str | None = None) -> tuple[list[str], list[Reference]]:
    """Return (generated, references), one of each per sample; a reference may be a list of several.

    A file of references has the column `key`, by default references, reference, output or target, or is plain lines. It
    is matched by `id` if both files have the same, otherwise by line order.
    """
    if key is not None and (references is None or not has_columns(references)):
        what = "no --references" if references is None else f"{references} is read as plain lines"
        raise InputError(f"--reference-key names a column of the references, but there is {what}: pass JSON lines, "
                         "CSV, TSV or Parquet with --references")  # fmt: skip
    samples = numbered_samples(path, ("generated",))
    generated = [row["generated"] for _, row in samples]
    if references is None:
        own = [(row, "references" if "references" in row else "reference", number) for number, row in samples]
        return generated, [reference_under(row, key, f"{path}:{number}") for row, key, number in own]
    rows = list(records_of(references))
    key = key if has_columns(references) else "text"
    if not rows:
        raise InputError(f"{references}: no references in it")
    for number, row in rows:
        reference_text(row, f"{references}:{number}", key)
    matched = matching_rows(samples, rows, path, references)
    check_sources(samples, matched, path, references)
    return generated, [reference_text(row, f"{references}:{number}", key) for number, row in matched]


def matching_rows(samples: Numbered, rows: Numbered, path: Path, references: Path) -> Numbered:
    """Return the reference of each sample: by id if the files share ids, otherwise by line order."""
    by_id = rows_by_id(rows, references)
    missing = [(number, row) for number, row in samples if "id" not in row or str(row["id"]) not in by_id]
    if not missing:
        return [by_id[str(row["id"])] for _, row in samples]
    if len(missing) < len(samples):
        number, row = missing[0]
        raise InputError(f"{path}:{number}: no reference with id {row.get('id')!r} in {references}")
    if len(rows) != len(samples):
        raise InputError(f"{references}: {len(rows)} references for the {len(samples)} samples of {path}; without "
                         "common ids they are matched by line order, so the numbers must be equal")  # fmt: skip
    if by_id and any("id" in row for _, row in samples):
        say(f"warning: {references} has none of the ids of {path}; matched by line order")
    return rows


def check_sources(samples: Numbered, matched: Numbered, path: Path, references: Path) -> None:
    """Raise InputError if too many samples and their references have different sources."""
    unlike = {}
    for (number, row), (reference, other) in zip(samples, matched, strict=True):
        ours, theirs = first_of_keys(row, SOURCE_KEYS), first_of_keys(other, SOURCE_KEYS)
        if isinstance(ours, str) and isinstance(theirs, str):
            unlike[number, reference] = not alike(ours, theirs)
    if (count := sum(unlike.values())) > MAX_MISMATCHED * len(unlike):
        number, reference = next(pair for pair, differs in unlike.items() if differs)
        raise InputError(f"{path}:{number}: its source is not that of {references}:{reference}, and so for "
                         f"{count} of {len(unlike)} samples: are the references of another split?")  # fmt: skip


def alike(ours: str, theirs: str) -> bool:
    """Return whether texts may be the same source: one may be truncated or lack rare words, with other spaces."""
    start, other = ("".join(text.lower().split())[:SAME_START] for text in (ours, theirs))
    words = set(ours.lower().split())
    return start == other or len(words & set(theirs.lower().split())) >= max(len(words) / 2, 1)


def read_real(path: Path, count: int, key: str | None = None) -> list[str]:
    """Return the first `count` texts of a file of references, which do not have to match the samples."""
    texts = [
        row["text"] if list(row) == ["text"] and key is None else first_reference(row, f"{path}:{number}", key)
        for number, row in islice(records_of(path), count)
    ]
    if not texts:
        raise InputError(f"{path}: no references in it")
    return texts


def first_reference(row: dict, where: str, key: str | None) -> str:
    """Return the first of the row's references."""
    found = reference_text(row, where, key)
    return found if isinstance(found, str) else found[0]


def reference_text(row: dict, where: str, key: str | None = None) -> Reference:
    """Return the row's text, or list of texts, under the key, by default the first of REFERENCE_KEYS."""
    key = key or next((key for key in ("references", *REFERENCE_KEYS) if key in row), None)
    if key is None:
        expected, keys = ", ".join(map(repr, REFERENCE_KEYS)), ", ".join(row) or "none"
        raise InputError(f"{where}: none of {expected}; its keys are {keys}; name one with --reference-key")
    return reference_under(row, key, where)


def rows_by_id(rows: Numbered, path: Path) -> dict[str, tuple[int, Record]]:
    """Return numbered references by id; empty if no row has one. Raises InputError unless all ids are different."""
    by_id: dict[str, tuple[int, Record]] = {}
    if not any("id" in row for _, row in rows):
        return by_id
    for number, row in rows:
        if "id" not in row:
            raise InputError(f"{path}:{number}: no 'id', but other lines have one")
        if by_id.setdefault(str(row["id"]), (number, row))[0] != number:
            raise InputError(f"{path}:{number}: id {row['id']!r} is repeated")
    return by_id


def write_samples(path: Path, rows: list[dict], overwrite: bool = False) -> None:
    """Write samples as JSON lines, whole or not at all."""
    write_output(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), overwrite)


# --- provenance ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleProvenance:
    """Provenance of samples: checkpoint and sampling setting, whether spaces are cleaned up, split; None: unknown."""

    made_by: dict | None = None
    clean_up: bool | None = None
    split: str | None = None


UNKNOWN = SampleProvenance()


def meta_file(samples: Path) -> Path:
    """Return the file with the provenance of a samples file."""
    return samples.with_name(f"{samples.name}.meta.json")


def check_meta(samples: Path | None, overwrite: bool) -> None:
    """Raise InputError if the provenance of the samples could not be written later."""
    if samples is not None:
        check_output_file(meta_file(samples), overwrite)


def write_meta(samples: Path, origin: SampleProvenance, overwrite: bool = False) -> None:
    """Write the provenance, after the samples: without it, or with an older one, their provenance is unknown."""
    record = vars(origin) | {"xxh3_128": xxhash.xxh3_128_hexdigest(samples.read_bytes())}
    write_output(meta_file(samples), json.dumps(record, indent=1) + "\n", overwrite)


def read_meta(samples: Path) -> SampleProvenance:
    """Return the provenance of a samples file; unknown, after a warning, if the record is of other samples."""
    path = meta_file(samples)
    if not path.is_file():
        return UNKNOWN
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        origin = SampleProvenance(record["made_by"], record["clean_up"], record["split"])
        if not isinstance(origin.made_by, dict):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        say(f"warning: {path}: not written by elf; made by: unknown")
        return UNKNOWN
    if record.get("xxh3_128") != xxhash.xxh3_128_hexdigest(samples.read_bytes()):
        say(f"warning: {path} belongs to other samples than {samples} now holds; made by: unknown")
        return UNKNOWN
    return origin
