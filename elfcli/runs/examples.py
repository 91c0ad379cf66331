"""The rows that a run trains on, and the rows that it is evaluated on."""

from dataclasses import replace
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.data.batches import TokenTable, column_from_rows, rows_between
from elfcli.data.folder import Examples, load_examples, split_names
from elfcli.data.gaps import ROOM, GapSettings
from elfcli.errors import InputError


def gap_settings(config: Config, pad: int) -> GapSettings:
    """Return how a run draws gaps. pad: id of the padding."""
    return GapSettings(config.data.gaps, pad, max(config.data.max_length - ROOM, 1), config.training.seed)


def without_held_out(examples: Examples, most: int) -> tuple[Examples, Examples | None]:
    """Return (rows to train on, held-out rows): the last `most` rows are held out, at most 1% of all; None for none."""
    count, total = min(most, len(examples) // 100), len(examples)
    if not count:
        return examples, None
    texts, first = examples.texts, total - count
    last_texts = None if texts is None else lambda row: texts(first + row)
    last = replace(examples, tokens=rows_between(examples.tokens, first, total), texts=last_texts)
    return replace(examples, tokens=rows_between(examples.tokens, 0, first)), last


def open_examples(config: Config) -> Examples:
    """Return the training data without held-out rows; with `overfit_examples` only its first rows."""
    if config.data.data_path is None:
        raise InputError("no training data: pass --data DIR (of `elf tokenize`), or a --task with built-in data")
    examples = load_examples(config.data.data_path, "train")
    if (count := config.training.overfit_examples) is not None:
        return first_examples(examples, count)
    return examples if has_evaluation_split(config) else without_held_out(examples, config.data.num_held_out)[0]


def has_evaluation_split(config: Config) -> bool:
    """Return whether there are evaluation examples that are not part of the training split."""
    if config.data.eval_data_path is not None:
        return True
    try:
        load_examples(str(config.data.data_path), "validation")
    except InputError:
        return False
    return True


def first_examples(examples: Examples, count: int) -> Examples:
    """Return the first `count` rows, in memory."""
    rows = [examples.tokens[i] for i in range(min(count, len(examples)))]
    columns = [column_from_rows([row[name] for row in rows]) for name in ("input_ids", "condition_input_ids")
               if name in rows[0]]  # fmt: skip
    fingerprint = f"{examples.fingerprint}, first {len(rows)}"
    return replace(examples, tokens=TokenTable(*columns), files=(), fingerprint=fingerprint, largest_id=None)


def evaluation_examples(config: Config, data: str | None = None) -> Examples:
    """Return the evaluation split of `data`, eval_data_path or the training data, else rows held out from training."""
    if (where := data or config.data.eval_data_path) is None:
        if config.data.data_path is None:
            raise InputError("no evaluation data: pass --data DIR or set eval_data_path")
        try:
            return load_examples(config.data.data_path, "validation")
        except InputError:
            held_out = without_held_out(load_examples(config.data.data_path, "train"), config.data.num_held_out)[1]
            if held_out is None:
                raise
            return held_out
    if Path(where).is_dir():
        splits = split_names(where)
        return load_examples(where, "validation" if "validation" in splits else splits[0])
    try:
        return load_examples(where, "validation")
    except InputError:  # a Hub data set with a single split, whatever its name
        return load_examples(where, None)
