"""Opening data: folders of `elf tokenize` or `datasets.save_to_disk`, and data sets and tokenizers of the Hub."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elfcli.data.batches import TokenColumn, TokenTable
from elfcli.data.tokenizers import TOKENIZER_FOLDER, existing_folder
from elfcli.errors import InputError, did_you_mean, first_line
from elfcli.hub_access import from_hub, hub_reachable, looks_like_a_path

METADATA_FILE = "elf_data.json"
KNOWN_TEXT_COLUMNS = ("text", "input", "reference", "output", "source", "target")
SAVED_FOLDER_COLUMN = "_data_files"
"""Column that shows when `load_dataset` has read the state file of an uploaded save_to_disk folder as data."""


@dataclass(frozen=True)
class Examples:
    """One split: token rows, the texts of a row where stored, `elf_data.json` where there is one, the origin.

    files: those that hold the rows. fingerprint: of the rows; after `elf tokenize` the hash of its file.
    largest_id: None where it is not recorded for just these rows.
    """

    tokens: TokenTable
    texts: Callable[[int], dict[str, str]] | None
    metadata: dict[str, Any] | None
    path: str
    files: tuple[Path, ...] = ()
    fingerprint: str = ""
    largest_id: int | None = None

    def __len__(self) -> int:
        return len(self.tokens)


def saved_splits(folder: Path) -> tuple[str, ...] | None:
    """Splits of a save_to_disk folder; None: a single unnamed split; InputError if it is no such folder."""
    splits_file = folder / "dataset_dict.json"
    if splits_file.is_file():
        try:
            return tuple(json.loads(splits_file.read_text(encoding="utf-8"))["splits"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{splits_file} is damaged ({error}): write the data again") from error
    if (folder / "state.json").is_file():
        return None
    raise InputError(f"{folder} holds no data (neither state.json nor dataset_dict.json): "
                     "give a folder written by `elf tokenize` or datasets.save_to_disk")  # fmt: skip


def choose_split(splits: tuple[str, ...], split: str | None, where: str) -> str:
    """`split`, or the only one there is; InputError where there is no such split."""
    if split is None and len(splits) != 1:
        raise InputError(f"{where} has several splits ({', '.join(splits)}): name one")
    if split is not None and split not in splits:
        raise InputError(f"{where} has no split '{split}'{did_you_mean(split, splits)}: it has {', '.join(splits)}")
    return split or splits[0]


def open_folder(folder: Path, split: str | None):
    """The `datasets.Dataset` of a split of a save_to_disk folder."""
    import datasets

    splits = saved_splits(folder)
    chosen = choose_split(splits or ("train",), split, str(folder))
    part = folder / chosen if splits else folder
    try:
        return datasets.load_from_disk(str(part))
    except IndexError as error:  # there is no shard
        raise InputError(f"{part} has no examples") from error
    except Exception as error:
        raise InputError(f"{part} cannot be opened ({first_line(error)}): write the data again") from error


def cached_hub_dataset(name: str, split: str | None):
    """A split of a Hub data set as an earlier download left it in the cache; InputError where there is none."""
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import snapshot_download

    with suppress(OSError):  # no snapshot; then the Arrow files that `datasets` made of its files
        folder = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
        if any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            return open_folder(folder, split)
    try:
        found = Cache(repo_id=name, dataset_name=name.split("/")[-1], version="auto", hash="auto").as_dataset()
    except Exception as error:
        raise InputError(f"There is no folder {name}, it is not in the cache ({first_line(error)}), and the Hugging "
                         "Face Hub cannot be reached: give a data folder") from error  # fmt: skip
    return found[choose_split(tuple(map(str, found)), split, name)]


def open_hub_dataset(name: str, split: str | None):
    """A split of a Hub data set, which may be a save_to_disk folder uploaded as it is."""
    import datasets
    from datasets.exceptions import DatasetGenerationError
    from huggingface_hub import snapshot_download

    with from_hub(f"The data set {name}"):
        try:
            found = datasets.load_dataset(name)
        except DatasetGenerationError:
            found = None
        if found is None or any(SAVED_FOLDER_COLUMN in part.column_names for part in found.values()):
            return open_folder(Path(snapshot_download(name, repo_type="dataset")), split)
    return found[choose_split(tuple(map(str, found)), split, name)]


def column_from_arrow(column, where: str) -> TokenColumn:
    """An Arrow list column without copying; InputError where it does not hold lists of integers."""
    import pyarrow as pa

    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind)
    lists = fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists or not pa.types.is_integer(kind.value_type):
        raise InputError(f"{where} holds {kind}, not lists of token ids")
    values, offsets, starts = [], [], [0]
    for chunk in column.chunks:
        if chunk.null_count or chunk.values.null_count:
            raise InputError(f"{where} has missing token ids between rows {starts[-1]} and {starts[-1] + len(chunk)}")
        values.append(chunk.values.to_numpy(zero_copy_only=True))
        if fixed:
            offsets.append((np.arange(len(chunk) + 1) + chunk.offset) * kind.list_size)
        else:
            offsets.append(chunk.offsets.to_numpy(zero_copy_only=True))
        starts.append(starts[-1] + len(chunk))
    return TokenColumn(tuple(values), tuple(offsets), np.array(starts, np.int64))


def token_table(dataset, where: str) -> TokenTable:
    """Token columns of a `datasets.Dataset`; InputError where `input_ids` is missing, empty or not integer lists."""
    if "input_ids" not in dataset.column_names:
        near, found = did_you_mean("input_ids", dataset.column_names), ", ".join(dataset.column_names) or "none"
        raise InputError(f"{where} has no column 'input_ids'{near}: its columns are {found}; `elf tokenize` writes "
                         "what is needed")  # fmt: skip
    if len(dataset) == 0:
        raise InputError(f"{where} has no examples")
    names = [name for name in ("input_ids", "condition_input_ids") if name in dataset.column_names]
    if dataset._indices is not None:
        dataset = dataset.select_columns(names).flatten_indices()
    columns = [column_from_arrow(dataset.data.column(name), f"Column '{name}' of {where}") for name in names]
    return TokenTable(*columns)


def text_reader(dataset) -> Callable[[int], dict[str, str]] | None:
    """Reads the text columns of a row; None where there are none."""
    names = [name for name in KNOWN_TEXT_COLUMNS if name in dataset.column_names]
    if not names:
        return None
    texts = dataset.select_columns(names)
    return lambda row: dict(texts[row])


def load_examples(path_or_name: str | Path, split: str | None = "train") -> Examples:
    """Opens one split of a data folder or Hub data set; token ids stay memory-mapped. InputError where it cannot.

    A folder saved from a single Dataset counts as `train`. `split=None` takes the only split.
    """
    name = str(path_or_name)
    if looks_like_a_path(name):
        folder = existing_folder(name, "Data")
        dataset, metadata = open_folder(folder, split), read_metadata(folder)
    elif not hub_reachable():
        dataset, metadata = cached_hub_dataset(name, split), None
    else:
        dataset, metadata = open_hub_dataset(name, split), None
    where = name if split is None else f"{name} ({split})"
    files = tuple(Path(file["filename"]) for file in dataset.cache_files)
    fingerprint = saved_fingerprint(files) or dataset._fingerprint
    largest = recorded_largest_id(metadata, fingerprint, files)
    return Examples(token_table(dataset, where), text_reader(dataset), metadata, name, files, fingerprint, largest)


def saved_fingerprint(files: Sequence[Path]) -> str | None:
    """The fingerprint in the state file beside a saved split, which opening it changes; None for other data."""
    state = files[0].with_name("state.json") if files else None
    if state is None or not state.is_file():
        return None
    return json.loads(state.read_text(encoding="utf-8")).get("_fingerprint")


def recorded_largest_id(metadata: dict[str, Any] | None, fingerprint: str, files: Sequence[Path]) -> int | None:
    """The largest token id that `elf tokenize` put down for these files; None for data without that or changed."""
    size = sum(file.stat().st_size for file in files)
    for split in (metadata or {}).get("splits", {}).values():
        if (split.get("fingerprint"), split.get("bytes")) == (fingerprint, size):
            return split.get("largest_id")
    return None


def split_names(path_or_name: str | Path) -> tuple[str, ...]:
    """Splits of a data folder (("train",) for a single Dataset)."""
    return saved_splits(existing_folder(str(path_or_name), "Data")) or ("train",)


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """The content of a folder's elf_data.json; None where there is none."""
    file = folder / METADATA_FILE
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): tokenize again") from error


def keys_of(metadata: dict[str, Any] | None) -> tuple[str, ...]:
    """The columns of source and target that `elf tokenize` read; empty where it read no pairs or nothing says it."""
    keys = (metadata or {}).get("settings", {}).get("keys") or ()
    return tuple(keys) if len(keys) == 2 else ()


def recorded_tokenizer(examples: Examples) -> str:
    """Folder or name of the tokenizer that made the data; InputError where it is not recorded."""
    folder = Path(examples.path).expanduser() / TOKENIZER_FOLDER
    if folder.is_dir():
        return str(folder)
    if examples.metadata and examples.metadata.get("tokenizer"):
        return str(examples.metadata["tokenizer"])
    raise InputError(f"{examples.path} does not say which tokenizer made it: set tokenizer_name")
