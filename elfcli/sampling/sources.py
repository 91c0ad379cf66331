"""What is sampled: the evaluation split's sources, a file's lines, or nothing for free texts."""

from collections.abc import Sequence
from contextlib import suppress
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
from elfcli.scoring import samples_file
from elfcli.scoring.samples_file import REFERENCE_KEYS, SOURCE_KEYS, check_row_text, first_of_keys

MAX_TRAINING_TEXTS = 20_000
"""Training texts that samples are compared with."""


class Sources(NamedTuple):
    """Sources to sample for. conditions: token ids, none for free texts.

    rows: {"id"}, with "input" and "reference" if known.
    """

    conditions: Sequence[Sequence[int]]
    rows: list[dict]


def sources_of(model: LoadedModel, data: str | None = None, count: int | None = None) -> Sources:
    """Return the evaluation split's first `count` sources, or that many free texts. Default count: the settings'."""
    number = count or model.config.evaluation.num_samples

    def load() -> Sources:
        if not model.config.data.max_input_length:
            return Sources([()] * number, [{"id": i} for i in range(number)])
        return example_sources(model, evaluation_examples(model.config, data), number)

    return run_on_all(load)


def first_sources(model: LoadedModel, count: int) -> Sources:
    """Return the first `count` sources of the evaluation split, or of the training data if there is no such split."""
    try:
        return sources_of(model, None, count)
    except InputError:
        return sources_of(model, model.config.data.data_path, count)


def example_sources(model: LoadedModel, examples: Examples, count: int) -> Sources:
    """Return the first `count` examples: sources, none for unconditional models, and their texts as references."""
    paired = model.config.data.max_input_length > 0
    if paired and examples.tokens.condition_input_ids is None:
        raise InputError(f"{examples.path}: {model.name} needs sources, but this data has no condition_input_ids")

    def text_of(texts: dict, keys: Sequence[str], ids: Any) -> str:
        text = first_of_keys(texts, keys)
        return text if text is not None else decoded(model.tokenizer, [ids], model.config.evaluation.clean_up)[0]

    conditions: list[Any] = []
    rows: list[dict] = []
    for i in range(min(count, len(examples))):
        tokens, texts = examples.tokens[i], examples.texts(i) if examples.texts else {}
        conditions.append(tokens["condition_input_ids"] if paired else ())
        source = {"input": text_of(texts, SOURCE_KEYS, conditions[-1])} if paired else {}
        rows.append({"id": i} | source | {"reference": text_of(texts, REFERENCE_KEYS, tokens["input_ids"])})
    return Sources(conditions, rows)


def training_texts(model: LoadedModel, train: Examples) -> set[str]:
    """Return the first training texts, as the model would write them."""
    count = min(len(train), MAX_TRAINING_TEXTS, max(2_000_000 // model.config.data.max_length, 1))
    rows = [train.tokens.input_ids[i].tolist() for i in range(count)]
    return set(decoded(model.tokenizer, rows, model.config.evaluation.clean_up)) - {""}


def seen_texts(model: LoadedModel) -> set[str] | None:
    """Return the first training texts; None unless the training data is a local folder."""
    folder = model.config.data.data_path
    with suppress(InputError):
        if folder is not None and Path(folder).is_dir():
            return training_texts(model, load_examples(folder, "train"))
    return None


def real_texts(model: LoadedModel, sources: Sources, data: str | None) -> list[str]:
    """Return as many held-out texts as are sampled: the references, or else texts of a local validation split, cut at
    the model's max_length tokens, because entropy and perplexity depend on the length."""
    if sources.rows and all("reference" in row for row in sources.rows):
        return [row["reference"] for row in sources.rows]
    folder = data or model.config.data.eval_data_path or model.config.data.data_path
    with suppress(InputError):
        if folder is not None and Path(folder).is_dir():
            examples = evaluation_examples(model.config, data)
            rows = example_sources(model, examples, len(sources.rows)).rows
            return [truncated(model, examples.tokens.input_ids[row["id"]], row["reference"]) for row in rows]
    return []


def truncated(model: LoadedModel, ids: Any, text: str) -> str:
    """Return a text, or what its first max_length tokens decode to if it has more."""
    limit = model.config.data.max_length
    return text if len(ids) <= limit else decoded(model.tokenizer, [ids[:limit]], model.config.evaluation.clean_up)[0]


def sources_of_texts(model: LoadedModel, texts: Sequence[str]) -> Sources:
    """Return texts as sources. Raises InputError if one is empty or not a string, or if there are none."""
    for place, text in enumerate(texts):
        check_row_text({"input": text}, "input", f"inputs[{place}]")
        if not text.strip():
            raise InputError(f"inputs[{place}]: is empty; every input is a source")
    if not texts:
        raise InputError("inputs: no texts in it")
    return Sources(encode_conditions(model, texts), [{"id": i, "input": text} for i, text in enumerate(texts)])


def recorded_keys(config: Config) -> tuple[list[str], list[str]]:
    """Return the source's and the target's column in the files that `elf tokenize` read; empty if unknown.

    Older runs record the columns only in their data folder.
    """
    if config.data.source_key:
        return [config.data.source_key], [config.data.target_key] if config.data.target_key else []
    folder = Path(config.data.data_path or "").expanduser()
    keys = list(keys_of(read_metadata(folder) if config.data.data_path and folder.is_dir() else None))
    return keys[:1], keys[1:]


def encode_conditions(model: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of source texts. Raises InputError for an unconditional model."""
    if not model.config.data.max_input_length:
        raise InputError(f"{model.name}: an unconditional model takes no input; pass --num-samples instead")
    return model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def rows_of_file(model: LoadedModel, path: Path, source_key: str | None = None, count: int | None = None) -> Sources:
    """Return the sources of a file's first `count` lines, with their references if it has them.

    A source is the column `source_key`; by default `input` or `source`, otherwise the one recorded with the training
    data; in plain text the line. A reference is `reference`, `output` or `target`, otherwise the recorded target.
    """
    sources, targets = recorded_keys(model.config)
    keys = [source_key] if source_key else list(dict.fromkeys([*SOURCE_KEYS, *sources]))
    rows: list[dict] = []
    for number, line in list(islice(samples_file.records_of(path), count)):  # bad lines are reported first
        where = f"{path}:{number}"
        key = next((key for key in keys if key in line), None)
        if key is None and list(line) == ["text"] and not source_key and not samples_file.has_columns(path):
            key = "text"
        if key is None:
            raise InputError(f"{where}: no source under {' or '.join(map(repr, keys))}{did_you_mean(keys[-1], line)}: "
                             f"its columns are {', '.join(line) or 'none'}; name one with --source-key")  # fmt: skip
        check_row_text(line, key, where)
        if not line[key].strip():
            empty = "an empty line" if key == "text" else f"{key!r} is empty"
            raise InputError(f"{where}: {empty}; every line of the input needs a source")
        row = {"id": line.get("id", len(rows)), "input": line[key]}
        target = next((k for k in (*REFERENCE_KEYS, *targets) if k != key and line.get(k) is not None), None)
        if target is not None:
            check_row_text(line, target, where)
            row["reference"] = line[target]
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no lines in it; every line of the input is a source")
    return Sources(encode_conditions(model, [row["input"] for row in rows]), rows)
