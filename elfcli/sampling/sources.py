"""What is sampled: the evaluation split's sources, a file's lines, or nothing for free texts."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from elfcli.config.schema import Config
from elfcli.corpus.fetch import Report, local_files
from elfcli.corpus.files import DEFAULT_LAYOUT, Layout
from elfcli.corpus.readers import table_hint
from elfcli.data.folder import Examples, keys_of, load_examples, read_metadata
from elfcli.data.gaps import Frame
from elfcli.data.plain_text import LossFinder, check_unknown, plain_encoder
from elfcli.data.templates import Template
from elfcli.data.tokenizers import decoded
from elfcli.errors import InputError, did_you_mean
from elfcli.parallel.agree import run_on_all
from elfcli.runs.examples import evaluation_examples
from elfcli.sampling.model import LoadedModel
from elfcli.scoring import samples_file
from elfcli.scoring.samples_file import (
    REFERENCE_KEYS,
    SOURCE_KEYS,
    check_row_text,
    first_of_keys,
    reference_under,
    several,
)
from elfcli.ui.progress import say

MAX_TRAINING_TEXTS = 20_000
"""Training texts that samples are compared with."""


class Sources(NamedTuple):
    """Sources to sample for. conditions: token ids, none for free texts.

    rows: {"id"}, with "input" and "reference" if known. templates, frames: of texts with gaps, one for each condition,
    which is then the frame's token ids.
    """

    conditions: Sequence[Sequence[int]]
    rows: list[dict]
    templates: Sequence[Template] = ()
    frames: Sequence[Frame] = ()

    def between(self, first: int, stop: int) -> "Sources":
        """Return sources `first` to `stop - 1`."""
        part = slice(first, stop)
        return Sources(self.conditions[part], self.rows[part], self.templates[part], self.frames[part])

    def examples(self) -> list[dict[str, Any]]:
        """Return what `collate` takes."""
        if self.frames:
            return [frame.example() for frame in self.frames]
        return [{"condition_input_ids": np.asarray(ids, np.int32), "input_ids": ()} for ids in self.conditions]


def sources_of(model: LoadedModel, data: str | None = None, count: int | None = None) -> Sources:
    """Return the evaluation split's first `count` sources, or that many free texts. Default count: the settings'."""
    number = count or model.config.evaluation.num_samples

    def load() -> Sources:
        if not model.config.data.takes_sources:
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
    paired = model.config.data.takes_sources
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


def sources_of_texts(model: LoadedModel, texts: Sequence[str], allow_unknown: bool = False) -> Sources:
    """Return texts as sources. Raises InputError if there are none, if one is empty or not a string, or if too much of
    them is unknown to the tokenizer and that is not allowed."""
    for place, text in enumerate(texts):
        check_row_text({"input": text}, "input", f"inputs[{place}]")
        if not text.strip():
            raise InputError(f"inputs[{place}]: is empty; every input is a source")
    if not texts:
        raise InputError("inputs: no texts in it")
    return Sources(
        encode_conditions(model, texts, "inputs", allow_unknown),
        [{"id": i, "input": text} for i, text in enumerate(texts)],
    )


def recorded_keys(config: Config) -> tuple[list[str], list[str]]:
    """Return the source's and the target's column in the files that `elf tokenize` read; empty if unknown.

    Older runs record the columns only in their data folder.
    """
    if config.data.source_key:
        return [config.data.source_key], [config.data.target_key] if config.data.target_key else []
    folder = Path(config.data.data_path or "").expanduser()
    keys = list(keys_of(read_metadata(folder) if config.data.data_path and folder.is_dir() else None))
    return keys[:1], keys[1:]


def require_sources(model: LoadedModel) -> None:
    """Raise InputError for a model without sources."""
    if not model.config.data.takes_sources:
        instead = "--template-key, --template, --prompt or --num-samples"
        raise InputError(f"{model.name}: an unconditional model takes no input; pass {instead} instead")


def encode_conditions(model: LoadedModel, texts: Sequence[str], what: str, allow_unknown: bool) -> list[list[int]]:
    """Return the token ids of source texts, read as plain characters. what: their name in messages.

    Raises InputError for an unconditional model, or if too much is unknown to the tokenizer and that is not allowed.
    """
    require_sources(model)
    rows = plain_encoder(model.tokenizer)(texts)
    losses = LossFinder(model.tokenizer).losses(texts, rows, checked=0)
    check_unknown(losses, f"{what}, source", "use a model with another vocabulary", allow_unknown)
    return rows


def rows_of_file(
    model: LoadedModel,
    path: Path | str,
    source_key: str | None = None,
    count: int | None = None,
    layout: Layout = DEFAULT_LAYOUT,
    allow_unknown: bool = False,
) -> Sources:
    """Return the sources of the first `count` lines of a file, address or split of a Hub data set, with references.

    A source is the column `source_key`; by default `input` or `source`, otherwise the one recorded with the training
    data; in plain text the line. A reference is `reference`, `output` or `target`, otherwise the recorded target; if it
    is a list, rows have all of it as `references`.
    """
    recorded, targets = recorded_keys(model.config)
    keys = [source_key] if source_key else list(dict.fromkeys([*SOURCE_KEYS, *recorded]))
    rows = file_rows(path, keys, "source", count, layout, targets)
    return Sources(encode_conditions(model, [row["input"] for row in rows], str(path), allow_unknown), rows)


def file_rows(
    path: Path | str, keys: Sequence[str], what: str, count: int | None, layout: Layout, targets: Sequence[str] = ()
) -> list[dict]:
    """Return the rows of the first `count` lines of a file, each with the text under the first of the keys that it has.

    what: `source` or `template`; a source may be a plain line. targets: as of `row_of`.
    """
    rows: list[dict] = []
    plain = what == "source" and len(keys) > 1
    with TemporaryDirectory() as folder, local_files([[str(path)]], Path(folder), _say_stage()) as [files]:
        numbered = ((file, *record) for file in map(Path, files) for record in samples_file.records_of(file, layout))
        for file, number, line in list(islice(numbered, count)):  # bad lines are reported first
            where = f"{file}:{number}"
            key = next((key for key in keys if key in line), None)
            if key is None and list(line) == ["text"] and plain and not samples_file.has_columns(file):
                key = "text"
            if key is None:
                columns = f"its columns are {', '.join(line) or 'none'}{table_hint(file, list(line), layout)}"
                raise InputError(f"{where}: no {what} under {' or '.join(map(repr, keys))}"
                                 f"{did_you_mean(keys[-1], line)}: {columns}; name one with --{what}-key")  # fmt: skip
            rows.append(row_of(line, key, where, len(rows), targets))
    if not rows:
        raise InputError(f"{path}: no lines in it; every line of the input is a {what}")
    return rows


def row_of(line: dict, key: str, where: str, place: int, targets: Sequence[str]) -> dict:
    """Return the row of a line: its id, source and references. targets: columns of references with another name."""
    check_row_text(line, key, where)
    if not line[key].strip():
        empty = "an empty line" if key == "text" else f"{key!r} is empty"
        raise InputError(f"{where}: {empty}; every line of the input needs a source")
    row = {"id": line.get("id", place), "input": line[key]}
    names = ("references", *REFERENCE_KEYS, *targets)
    target = next((name for name in names if name != key and line.get(name) is not None), None)
    if target is not None:
        reference = reference_under(line, target, where)
        row["reference"] = several(reference)[0]
        if len(several(reference)) > 1:
            row["references"] = reference
    return row


def _say_stage() -> Report:
    """Return a report of downloads that prints each of them once."""
    shown: set[str] = set()

    def report(stage: str, done: int, total: int, documents: int) -> None:
        if stage not in shown:
            shown.add(stage)
            say(stage)

    return report
