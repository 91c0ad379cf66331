"""What is sampled: the evaluation split's sources, a file's lines, or nothing for free texts."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from elfcli.config.schema import Config
from elfcli.data.folder import Examples, keys_of, load_examples, read_metadata
from elfcli.data.tokenizers import decoded
from elfcli.errors import InputError, did_you_mean
from elfcli.parallel.agree import run_on_all
from elfcli.runs.examples import evaluation_examples
from elfcli.sampling.model import LoadedModel
from elfcli.scoring.samples_file import (
    REFERENCE_KEYS,
    SOURCE_KEYS,
    check_row_text,
    first_of_keys,
    has_columns,
    records_of,
)

MAX_TRAINING_TEXTS = 20_000
"""Training texts that a sample may equal."""


class Sources(NamedTuple):
    """conditions: token ids, none for free texts. rows: {"id"}, with "input" and "reference" where known."""

    conditions: Sequence[Sequence[int]]
    rows: list[dict]


def rows_to_sample(model: LoadedModel, data: str | None, count: int) -> Sources:
    """The evaluation split's first `count` sources; for unconditional models `count` free texts."""
    if not model.config.data.max_input_length:
        return Sources([()] * count, [{"id": i} for i in range(count)])
    return example_sources(model, evaluation_examples(model.config, data), count)


def example_sources(model: LoadedModel, examples: Examples, count: int) -> Sources:
    """The first `count` examples: their sources, none for unconditional models, and their texts as references."""
    paired = model.config.data.max_input_length > 0
    if paired and examples.tokens.condition_input_ids is None:
        raise InputError(f"{examples.path}: {model.name} needs sources, but this data has no condition_input_ids")
    conditions: list[Any] = []
    rows: list[dict] = []
    for i in range(min(count, len(examples))):
        tokens, texts = examples.tokens[i], examples.texts(i) if examples.texts else {}

        def text(keys, ids, texts=texts):
            found = first_of_keys(texts, keys)
            return found if found is not None else decoded(model.tokenizer, [ids], model.config.evaluation.clean_up)[0]

        conditions.append(tokens["condition_input_ids"] if paired else ())
        source = {"input": text(SOURCE_KEYS, conditions[-1])} if paired else {}
        rows.append({"id": i} | source | {"reference": text(REFERENCE_KEYS, tokens["input_ids"])})
    return Sources(conditions, rows)


def training_texts(model: LoadedModel, train: Examples) -> set[str]:
    """The first training texts, as the model would write them."""
    count = min(len(train), MAX_TRAINING_TEXTS, max(2_000_000 // model.config.data.max_length, 1))
    rows = [train.tokens.input_ids[i].tolist() for i in range(count)]
    return set(decoded(model.tokenizer, rows, model.config.evaluation.clean_up)) - {""}


def seen_texts(model: LoadedModel) -> set[str] | None:
    """Training texts, where the training data is a folder that is at hand."""
    where = model.config.data.data_path
    with suppress(InputError):
        if where is not None and Path(where).is_dir():
            return training_texts(model, load_examples(where, "train"))
    return None


def real_texts(model: LoadedModel, sources: Sources, data: str | None) -> list[str]:
    """As many held-out texts as are sampled: the references, else those of a validation split that is at hand."""
    if sources.rows and all("reference" in row for row in sources.rows):
        return [row["reference"] for row in sources.rows]
    where = data or model.config.data.eval_data_path or model.config.data.data_path
    with suppress(InputError):
        if where is not None and Path(where).is_dir():
            examples = evaluation_examples(model.config, data)
            return [row["reference"] for row in example_sources(model, examples, len(sources.rows)).rows]
    return []


def sources_of_texts(model: LoadedModel, texts: Sequence[str]) -> Sources:
    """Sources that are at hand as texts."""
    for place, text in enumerate(texts):
        check_row_text({"input": text}, "input", f"inputs[{place}]")
        if not text.strip():
            raise InputError(f"inputs[{place}]: is empty; every input is a source")
    if not texts:
        raise InputError("inputs: no texts in it")
    return Sources(encode_conditions(model, texts), [{"id": i, "input": text} for i, text in enumerate(texts)])


def recorded_keys(config: Config) -> tuple[list[str], list[str]]:
    """The source's and the target's column in what `elf tokenize` made the training data of; empty where unknown.

    Runs of before say it by their data alone.
    """
    if config.data.source_key:
        return [config.data.source_key], [config.data.target_key] if config.data.target_key else []
    folder = Path(config.data.data_path or "").expanduser()
    metadata = read_metadata(folder) if config.data.data_path and folder.is_dir() else None
    keys = keys_of(metadata)
    return (list(keys[:1]), list(keys[1:]))


def encode_conditions(model: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of source texts. InputError for an unconditional model."""
    if not model.config.data.max_input_length:
        raise InputError(f"{model.name}: an unconditional model takes no input; give --num-samples instead")
    return model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def rows_of_file(model: LoadedModel, path: Path, source_key: str | None = None, count: int | None = None) -> Sources:
    """The sources of a file's first `count` lines, with their references where it has them.

    A source is the column `source_key`, by default `input` or `source`, else the one recorded with the training data;
    of plain text the line. A reference is `reference`, `output` or `target`, else the recorded target.
    """
    sources, targets = recorded_keys(model.config)
    keys = [source_key] if source_key else list(dict.fromkeys([*SOURCE_KEYS, *sources]))
    rows: list[dict] = []
    for number, line in list(islice(records_of(path), count)):  # bad lines are told first
        where = f"{path}:{number}"
        key = next((key for key in keys if key in line), None)
        if key is None and list(line) == ["text"] and not source_key and not has_columns(path):
            key = "text"
        if key is None:
            raise InputError(f"{where}: no source under {' or '.join(map(repr, keys))}{did_you_mean(keys[-1], line)}: "
                             f"its columns are {', '.join(line) or 'none'}; name one with --source-key")  # fmt: skip
        check_row_text(line, key, where)
        if not line[key].strip():
            raise InputError(f"{where}: {'an empty line' if key == 'text' else f'{key!r} is empty'}; every line of the "
                             "input needs a source")  # fmt: skip
        target = next((k for k in (*REFERENCE_KEYS, *targets) if k != key and line.get(k) is not None), None)
        if target is not None:
            check_row_text(line, target, where)
        row = {"id": line.get("id", len(rows)), "input": line[key]}
        rows.append(row | ({"reference": line[target]} if target is not None else {}))
    if not rows:
        raise InputError(f"{path}: no lines in it; every line of the input is a source")
    return Sources(encode_conditions(model, [row["input"] for row in rows]), rows)


def first_sources(model: LoadedModel, count: int) -> Sources:
    try:
        return sources_of(model, None, count)
    except InputError:  # no validation split
        return sources_of(model, model.config.data.data_path, count)


def sources_of(model: LoadedModel, data: str | None = None, count: int | None = None) -> Sources:
    """The evaluation split's sources, or free texts; `count` of them, by default what the settings say."""
    return run_on_all(partial(rows_to_sample, model, data, count or model.config.evaluation.num_samples))
