"""Token ids against the vocabulary: the rows of a data set are read for it once at most, not at each start."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from elfcli.data.batches import TokenColumn
from elfcli.data.folder import Examples
from elfcli.errors import InputError


def check_token_ids(examples: Examples, vocab_size: int) -> None:
    """Raises InputError that names the first row with a token id outside 0..vocab_size-1.

    Where the largest id is known, from `elf tokenize` or an earlier look at the same files, no token is read.
    """
    largest = examples.largest_id
    if largest is None:
        largest = noted_largest_id(examples)
    if largest is None:
        columns = [examples.tokens.input_ids, examples.tokens.condition_input_ids]
        largest = max(largest_id(column) for column in columns if column is not None)
        note_largest_id(examples, largest)
    if largest < vocab_size:
        return
    columns_by_name = {"input_ids": examples.tokens.input_ids,
                       "condition_input_ids": examples.tokens.condition_input_ids}  # fmt: skip
    for name, column in columns_by_name.items():
        if column is not None:
            refuse_ids(name, column, vocab_size)
    raise InputError(f"{examples.path} says that it holds the token id {largest}, outside the vocabulary of "
                     f"{vocab_size}: tokenize again")  # fmt: skip


def largest_id(column: TokenColumn) -> int:
    """The largest token id, a negative one taken as a huge one; in one pass over the rows."""
    largest = 0
    for values, offsets in zip(column.values, column.offsets, strict=True):
        used = values[offsets[0] : offsets[-1]]
        if len(used):
            largest = max(largest, int(used.view(f"u{used.dtype.itemsize}").max()))
    return largest


def refuse_ids(name: str, column: TokenColumn, vocab_size: int) -> None:
    for values, offsets, start in zip(column.values, column.offsets, column.starts, strict=False):
        used = values[offsets[0] : offsets[-1]]
        wrong = (used < 0) | (used >= vocab_size)
        if wrong.any():
            place = int(np.argmax(wrong))
            row = int(start) + int(np.searchsorted(offsets, offsets[0] + place, side="right")) - 1
            raise InputError(f"Row {row} of '{name}' has token id {used[place]}, outside the vocabulary of "
                             f"{vocab_size}: the data was made with another tokenizer")  # fmt: skip


def note_of(examples: Examples) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "elf" / "largest-id" / f"{examples.fingerprint}.json"


def state_of(examples: Examples) -> list:
    """What changes when one of the files does."""
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in examples.files]


def noted_largest_id(examples: Examples) -> int | None:
    """What an earlier look at the same files found; None where there was none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(note_of(examples).read_text(encoding="utf-8"))
        if examples.files and note["files"] == state_of(examples):
            return int(note["largest_id"])
    return None


def note_largest_id(examples: Examples, largest: int) -> None:
    """Puts it down in the cache of Hugging Face's libraries; where that cannot be, the next start looks again."""
    note = note_of(examples)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"files": state_of(examples), "largest_id": largest}), encoding="utf-8")
