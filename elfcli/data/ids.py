"""Checks that token ids fit the vocabulary. The scan is cached, so it runs at most once per data set."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from elfcli.data.batches import TokenColumn
from elfcli.data.folder import Examples
from elfcli.errors import InputError


def check_token_ids(examples: Examples, vocab_size: int) -> None:
    """Raise InputError with the first row that has a token id outside 0..vocab_size-1.

    No token is read if the largest id is known from `elf tokenize` or from an earlier scan of the same files.
    """
    columns = {"input_ids": examples.tokens.input_ids}
    if examples.tokens.condition_input_ids is not None:
        columns["condition_input_ids"] = examples.tokens.condition_input_ids
    largest = examples.largest_id if examples.largest_id is not None else noted_largest_id(examples)
    if largest is None:
        largest = max(map(largest_id, columns.values()))
        note_largest_id(examples, largest)
    if largest < vocab_size:
        return
    for name, column in columns.items():
        refuse_ids(name, column, vocab_size)
    raise InputError(f"{examples.path} records the token id {largest}, outside the vocabulary of {vocab_size}: "
                     "tokenize again")  # fmt: skip


def largest_id(column: TokenColumn) -> int:
    """Return the largest token id in one pass over the rows; negative ids count as huge ones."""
    largest = 0
    for values, offsets in zip(column.values, column.offsets, strict=True):
        used = values[offsets[0] : offsets[-1]]
        if len(used):
            largest = max(largest, int(used.view(f"u{used.dtype.itemsize}").max()))
    return largest


def refuse_ids(name: str, column: TokenColumn, vocab_size: int) -> None:
    """Raise InputError with the first row that has a token id outside 0..vocab_size-1, if there is one."""
    for values, offsets, start in zip(column.values, column.offsets, column.starts, strict=False):
        used = values[offsets[0] : offsets[-1]]
        wrong = (used < 0) | (used >= vocab_size)
        if wrong.any():
            place = int(np.argmax(wrong))
            row = int(start) + int(np.searchsorted(offsets, offsets[0] + place, side="right")) - 1
            raise InputError(f"Row {row} of '{name}' has token id {used[place]}, outside the vocabulary of "
                             f"{vocab_size}: the data was made with another tokenizer")  # fmt: skip


def note_of(examples: Examples) -> Path:
    """Return the cache file for the largest id of a data set."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "elf" / "largest-id" / f"{examples.fingerprint}.json"


def state_of(examples: Examples) -> list:
    """Return the names, sizes and times of the files, which change if a file does."""
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in examples.files]


def noted_largest_id(examples: Examples) -> int | None:
    """Return the cached result of an earlier scan of the same files, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(note_of(examples).read_text(encoding="utf-8"))
        if examples.files and note["files"] == state_of(examples):
            return int(note["largest_id"])
    return None


def note_largest_id(examples: Examples, largest: int) -> None:
    """Cache the result under HF_HOME; if that fails, the next start scans again."""
    note = note_of(examples)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"files": state_of(examples), "largest_id": largest}), encoding="utf-8")
