"""What is sampled: the evaluation split's sources, a file's lines, or nothing for free texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elfcli.config.schema import Config
from elfcli.data.folder import Examples, decoded, load_examples, split_names
from elfcli.errors import InputError
from elfcli.evaluation.generate import Model, encode_conditions
from elfcli.evaluation.samples import REFERENCE_KEYS, read_jsonl

SOURCE_KEYS = ("input", "source")


class Sources(NamedTuple):
    """conditions: token ids, none for free texts. rows: {"id"}, with "input" and "reference" where known."""

    conditions: Sequence[Sequence[int]]
    rows: list[dict]


def evaluation_examples(config: Config, data: str | None = None) -> Examples:
    """The evaluation split of `data`, by default of eval_data_path, else of the training data."""
    where = data or config.data.eval_data_path
    if where is None:
        if config.data.data_path is None:
            raise InputError("no evaluation data: give --data DIR or set eval_data_path")
        return load_examples(config.data.data_path, "validation")
    if Path(where).is_dir():
        splits = split_names(where)
        return load_examples(where, "validation" if "validation" in splits else splits[0])
    try:
        return load_examples(where, "validation")
    except InputError:  # a Hub data set with a single split, whatever its name
        return load_examples(where, None)


def first(row: dict, keys: Sequence[str]) -> str | None:
    """The row's value under the first of the keys that it has."""
    return next((row[key] for key in keys if key in row), None)


def rows_to_sample(model: Model, data: str | None, count: int) -> Sources:
    """The evaluation split's first `count` sources; for unconditional models `count` free texts."""
    if not model.config.data.max_input_length:
        return Sources([()] * count, [{"id": i} for i in range(count)])
    return rows_of(model, evaluation_examples(model.config, data), count)


def rows_of(model: Model, examples: Examples, count: int) -> Sources:
    """The first `count` examples: their sources, none for unconditional models, and their texts as references."""
    paired = model.config.data.max_input_length > 0
    if paired and examples.tokens.condition_input_ids is None:
        raise InputError(f"{examples.path}: {model.name} needs sources, but this data has no condition_input_ids")
    conditions: list[Any] = []
    rows: list[dict] = []
    for i in range(min(count, len(examples))):
        tokens, texts = examples.tokens[i], examples.texts(i) if examples.texts else {}

        def text(keys, ids, texts=texts):
            found = first(texts, keys)
            return found if found is not None else decoded(model.tokenizer, [ids], model.config.evaluation.clean_up)[0]

        conditions.append(tokens["condition_input_ids"] if paired else ())
        source = {"input": text(SOURCE_KEYS, conditions[-1])} if paired else {}
        rows.append({"id": i} | source | {"reference": text(REFERENCE_KEYS, tokens["input_ids"])})
    return Sources(conditions, rows)


def rows_of_file(model: Model, path: Path) -> Sources:
    """The sources of a JSONL file with `input` (and `output` or `reference` where known) on each line."""
    rows = []
    for number, line in enumerate(read_jsonl(path), 1):
        source, target = first(line, SOURCE_KEYS), first(line, REFERENCE_KEYS)
        if not isinstance(source, str):
            raise InputError(f"{path}:{number}: expected a text under 'input', found the keys {', '.join(line)}")
        row = {"id": line.get("id", number - 1), "input": source}
        rows.append(row | ({"reference": target} if target is not None else {}))
    return Sources(encode_conditions(model, [row["input"] for row in rows]), rows)
