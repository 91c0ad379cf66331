"""The rows a run trains on, and the rows it is evaluated on."""

from dataclasses import replace
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.data import folder as data
from elfcli.data.batches import TokenTable, column_from_rows, rows_between
from elfcli.data.folder import Examples, load_examples, split_names
from elfcli.errors import InputError


def without_held_out(examples: Examples, most: int) -> tuple[Examples, Examples | None]:
    """(the rows to train on, the last rows, which are held out): at most `most` and a hundredth of all; None: none."""
    count, total = min(most, len(examples) // 100), len(examples)
    if not count:
        return examples, None
    texts, first = examples.texts, total - count
    last = replace(
        examples,
        tokens=rows_between(examples.tokens, first, total),
        texts=None if texts is None else lambda row: texts(first + row),
    )
    return replace(examples, tokens=rows_between(examples.tokens, 0, first)), last


def open_examples(config: Config) -> data.Examples:
    """The training data; with `overfit` its first examples alone."""
    if config.data.data_path is None:
        raise InputError("no training data: give --data DIR (written by `elf tokenize`), or a --task that has its own")
    examples = data.load_examples(config.data.data_path, "train")
    few = config.training.overfit_examples
    if few is not None:
        return first_examples(examples, few)
    return examples if has_evaluation_split(config) else without_held_out(examples, config.data.num_held_out)[0]


def has_evaluation_split(config: Config) -> bool:
    if config.data.eval_data_path is not None:
        return True
    try:
        data.load_examples(str(config.data.data_path), "validation")
    except InputError:
        return False
    return True


def first_examples(examples: data.Examples, count: int) -> data.Examples:
    rows = [examples.tokens[i] for i in range(min(count, len(examples)))]
    columns = [column_from_rows([row[name] for row in rows]) for name in ("input_ids", "condition_input_ids")
               if name in rows[0]]  # fmt: skip
    fingerprint = f"{examples.fingerprint}, first {len(rows)}"
    return replace(examples, tokens=TokenTable(*columns), files=(), fingerprint=fingerprint, largest_id=None)


def evaluation_examples(config: Config, data: str | None = None) -> Examples:
    """The evaluation split of `data`, by default of eval_data_path, else of the training data.

    Training data without such a split gives the examples that were kept from training.
    """
    where = data or config.data.eval_data_path
    if where is None:
        if config.data.data_path is None:
            raise InputError("no evaluation data: give --data DIR or set eval_data_path")
        try:
            return load_examples(config.data.data_path, "validation")
        except InputError:
            kept = without_held_out(load_examples(config.data.data_path, "train"), config.data.num_held_out)[1]
            if kept is None:
                raise
            return kept
    if Path(where).is_dir():
        splits = split_names(where)
        return load_examples(where, "validation" if "validation" in splits else splits[0])
    try:
        return load_examples(where, "validation")
    except InputError:  # a Hub data set with a single split, whatever its name
        return load_examples(where, None)
