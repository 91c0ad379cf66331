"""Opens data: folders of `elf tokenize` or `datasets.save_to_disk`, and data sets of the Hub."""

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
"""Column that appears if `load_dataset` has read the state file of an uploaded save_to_disk folder as data."""


@dataclass(frozen=True)
class Examples:
    """One split: token rows, a reader of a row's texts if they are stored, the content of `elf_data.json`, the origin.

    files: those that hold the rows. fingerprint: of the rows; after `elf tokenize`, the hash of its file.
    largest_id: None if it is not recorded for exactly these rows.
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
    """Return the splits of a save_to_disk folder, or None for a single unnamed split.

    Raises InputError if it is not such a folder.
    """
    splits_file = folder / "dataset_dict.json"
    if splits_file.is_file():
        try:
            return tuple(json.loads(splits_file.read_text(encoding="utf-8"))["splits"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{splits_file} is damaged ({error}): write the data again") from error
    if (folder / "state.json").is_file():
        return None
    raise InputError(f"{folder} holds no data (neither state.json nor dataset_dict.json): "
                     "choose a folder written by `elf tokenize` or datasets.save_to_disk")  # fmt: skip


def choose_split(splits: tuple[str, ...], split: str | None, where: str) -> str:
    """Return `split`, or the only split. Raises InputError if it does not exist or must be named."""
    if split is None and len(splits) != 1:
        raise InputError(f"{where} has several splits ({', '.join(splits)}): name one")
    if split is not None and split not in splits:
        raise InputError(f"{where} has no split '{split}'{did_you_mean(split, splits)}: it has {', '.join(splits)}")
    return split or splits[0]


def open_folder(folder: Path, split: str | None) -> Any:
    """Return the `datasets.Dataset` of a split of a save_to_disk folder. Raises InputError if it cannot be opened."""
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


def cached_hub_dataset(name: str, split: str | None) -> Any:
    """Return a split of a Hub data set from the cache. Raises InputError if it is not there."""
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import snapshot_download

    with suppress(OSError):  # without a snapshot, try the Arrow files that `datasets` wrote
        folder = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
        if any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            return open_folder(folder, split)
    try:
        splits = Cache(repo_id=name, dataset_name=name.split("/")[-1], version="auto", hash="auto").as_dataset()
    except Exception as error:
        raise InputError(f"There is no folder {name}, it is not in the cache ({first_line(error)}), and the Hugging "
                         "Face Hub cannot be reached: choose a data folder") from error  # fmt: skip
    return splits[choose_split(tuple(map(str, splits)), split, name)]


def open_hub_dataset(name: str, split: str | None) -> Any:
    """Return a split of a Hub data set, which may be an uploaded save_to_disk folder."""
    import datasets
    from datasets.exceptions import DatasetGenerationError
    from huggingface_hub import snapshot_download

    with from_hub(f"The data set {name}"):
        splits = None
        with suppress(DatasetGenerationError):
            splits = datasets.load_dataset(name)
        if splits is None or any(SAVED_FOLDER_COLUMN in part.column_names for part in splits.values()):
            return open_folder(Path(snapshot_download(name, repo_type="dataset")), split)
    return splits[choose_split(tuple(map(str, splits)), split, name)]


def column_from_arrow(column: Any, where: str) -> TokenColumn:
    """Return an Arrow list column without copying it. Raises InputError if it does not hold lists of integers."""
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


def token_table(dataset: Any, where: str) -> TokenTable:
    """Return the token columns of a `datasets.Dataset`.

    Raises InputError if `input_ids` is missing, empty or does not hold lists of integers.
    """
    if "input_ids" not in dataset.column_names:
        near, columns = did_you_mean("input_ids", dataset.column_names), ", ".join(dataset.column_names) or "none"
        raise InputError(f"{where} has no column 'input_ids'{near}: its columns are {columns}; `elf tokenize` writes "
                         "this column")  # fmt: skip
    if len(dataset) == 0:
        raise InputError(f"{where} has no examples")
    names = [name for name in ("input_ids", "condition_input_ids") if name in dataset.column_names]
    if dataset._indices is not None:
        dataset = dataset.select_columns(names).flatten_indices()
    return TokenTable(*(column_from_arrow(dataset.data.column(name), f"Column '{name}' of {where}") for name in names))


def text_reader(dataset: Any) -> Callable[[int], dict[str, str]] | None:
    """Return a function from a row number to the row's texts, or None if there are no text columns."""
    names = [name for name in KNOWN_TEXT_COLUMNS if name in dataset.column_names]
    if not names:
        return None
    texts = dataset.select_columns(names)
    return lambda row: dict(texts[row])


def load_examples(path_or_name: str | Path, split: str | None = "train") -> Examples:
    """Open one split of a data folder or Hub data set; token ids stay memory-mapped. Raises InputError on failure.

    A folder saved from a single Dataset counts as `train`. `split=None` selects the only split.
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
    """Return the fingerprint in a saved split's state file, which opening it changes, or None for other data."""
    state = files[0].with_name("state.json") if files else None
    if state is None or not state.is_file():
        return None
    return json.loads(state.read_text(encoding="utf-8")).get("_fingerprint")


def recorded_largest_id(metadata: dict[str, Any] | None, fingerprint: str, files: Sequence[Path]) -> int | None:
    """Return the largest token id that `elf tokenize` recorded for these files, or None if they have changed."""
    size = sum(file.stat().st_size for file in files)
    for split in (metadata or {}).get("splits", {}).values():
        if (split.get("fingerprint"), split.get("bytes")) == (fingerprint, size):
            return split.get("largest_id")
    return None


def split_names(path_or_name: str | Path) -> tuple[str, ...]:
    """Return the splits of a data folder; ("train",) for a single Dataset."""
    return saved_splits(existing_folder(str(path_or_name), "Data")) or ("train",)


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the content of a folder's elf_data.json, or None. Raises InputError if it is damaged."""
    file = folder / METADATA_FILE
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): tokenize again") from error


def keys_of(metadata: dict[str, Any] | None) -> tuple[str, ...]:
    """Return the source and target columns that `elf tokenize` read; () without pairs or a record of them."""
    keys = (metadata or {}).get("settings", {}).get("keys") or ()
    return tuple(keys) if len(keys) == 2 else ()


def recorded_tokenizer(examples: Examples) -> str:
    """Return the folder or name of the data's tokenizer. Raises InputError if it is not recorded."""
    folder = Path(examples.path).expanduser() / TOKENIZER_FOLDER
    if folder.is_dir():
        return str(folder)
    if examples.metadata and examples.metadata.get("tokenizer"):
        return str(examples.metadata["tokenizer"])
    raise InputError(f"{examples.path} does not record its tokenizer: set tokenizer_name")
