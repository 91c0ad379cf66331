"""Finds the public source data of the published tasks on the Hub, and names the default folder of tokenized data. The
Parquet files are read directly, because `datasets` no longer runs the scripts that some of these data sets have."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from elfcli.corpus.toy import TASKS
from elfcli.errors import InputError
from elfcli.hub_access import from_hub, hub_reachable, retrying

T5_TOKENIZER = "google-t5/t5-small"
HUB_SPLIT = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?:(?P<split>[\w.-]+)")
"""A split of a data set of the Hub: `owner/name:split` or `owner/name/config:split`."""
REVISIONS = ("main", "refs/convert/parquet")
"""Revisions with Parquet files: the owner's upload, else the branch with the Hub's conversion."""


@dataclass(frozen=True)
class PublicSource:
    """A Hub data set. columns: text, or source and target (`a.b`: field b of struct a). folder: its files' prefix."""

    repo: str
    columns: tuple[str, ...]
    folder: str = ""
    splits: tuple[str, ...] = ("train", "validation")


SOURCES = {
    # data/train-NNNNN-of-00093.parquet; column text; only a training split.
    "owt": PublicSource("Skylion007/openwebtext", ("text",), splits=("train",)),
    # de-en/train-NNNNN-of-00003.parquet; one column, translation {de, en}; validation is newstest2013.
    "de-en": PublicSource("wmt/wmt14", ("translation.de", "translation.en"), folder="de-en/"),
    # A script on main; default/train/0000.parquet in the Hub's conversion; columns document, summary, id.
    "xsum": PublicSource("EdinburghNLP/xsum", ("document", "summary")),
}


def default_folder(task: str | None, inputs: Iterable[str] = (), tokenizer: str | int | None = None) -> Path:
    """Return the data folder named after the task or first file and the tokenizer, e.g. `data/xsum-t5`. tokenizer: a
    name or folder, or the size of a trained one; None: T5's, or that of the toy task."""
    first = next(iter(inputs), "text").partition("?")[0]  # an address may have a query
    name = first if HUB_SPLIT.fullmatch(first) and not Path(first).exists() else Path(first).name.split(".")[0]
    name = task or re.sub(r"[^\w-]+", "-", name).strip("-") or "text"
    if tokenizer is None:
        return Path("data", name if task in TASKS else f"{name}-t5")
    return Path("data", f"{name}-{Path(str(tokenizer)).name}")


def public_files(task: str, report: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """Return the Parquet files of a published task's splits, downloaded to the Hub's cache, or raise InputError."""
    source = SOURCES[task]
    return downloaded(source, f"{task}: {source.repo}", f"; use local files, {local_example(source)}", report)


def downloaded(
    source: PublicSource, what: str, advice: str, report: Callable[[str], None]
) -> dict[str, tuple[str, ...]]:
    """Return the Parquet files of a data set's splits, downloaded to the Hub's cache.

    Raises InputError, which ends with the advice, if there are none or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download

    if not hub_reachable():
        if (cached := cached_files(source)) is None:
            raise InputError(f"{what}: the data is on the Hugging Face Hub, which cannot be reached{advice}")
        return cached
    with from_hub(what, advice):
        revision, splits = find_files(source, HfApi().list_repo_files, retrying, advice)
        names = [name for split in splits.values() for name in split]
        report(f"fetching {len(names)} files of {source.repo}")
        download = partial(snapshot_download, source.repo, repo_type="dataset", revision=revision)
        folder = Path(retrying(lambda: download(allow_patterns=names)))
    return {split: tuple(str(folder / name) for name in part) for split, part in splits.items()}


def cached_files(source: PublicSource) -> dict[str, tuple[str, ...]] | None:
    """Return the files of all splits in the cache, or None if some are missing."""
    from huggingface_hub import snapshot_download

    download = partial(snapshot_download, source.repo, repo_type="dataset", local_files_only=True)
    for revision in REVISIONS:
        with suppress(OSError):
            folder = Path(download(revision=revision))
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
            splits = {split: split_files(names, source.folder, split) for split in source.splits}
            if all(map(all_parts, splits.values())):
                return {split: tuple(str(folder / name) for name in part) for split, part in splits.items()}
    return None


def local_example(source: PublicSource) -> str:
    """Return the command that tokenizes the same data from local files."""
    flags = ("--source-key", "--target-key") if len(source.columns) == 2 else ("--text-key",)
    options = " ".join(f"{flag} {key.rpartition('.')[2]}" for flag, key in zip(flags, source.columns, strict=True))
    return f"e.g. `elf tokenize --input train.jsonl {options}`"


def find_files(
    source: PublicSource, list_files: Callable, retrying: Callable, advice: str = ""
) -> tuple[str, dict[str, list[str]]]:
    """Return the first revision with files of all splits, and its files. Raises InputError if there is none."""
    from huggingface_hub.errors import RevisionNotFoundError

    for revision in REVISIONS:
        try:
            names = retrying(lambda at=revision: list_files(source.repo, repo_type="dataset", revision=at))
        except RevisionNotFoundError:
            continue
        splits = {split: split_files(names, source.folder, split) for split in source.splits}
        if all(splits.values()):
            return revision, splits
    raise InputError(f"{source.repo}: the Hub has no Parquet files of {' and '.join(source.splits)}{advice}")


def split_files(names: Iterable[str], folder: str, split: str) -> list[str]:
    """Return the Parquet files of a split, sorted: `.../train-00000-of-00003.parquet` or `.../train/0000.parquet`."""
    pattern = re.compile(rf"{re.escape(folder)}(.*/)?{split}(-[^/]*|/[^/]*)?\.parquet")
    return sorted(name for name in names if pattern.fullmatch(name))


def all_parts(names: list[str]) -> bool:
    """Return whether no file of `...-of-00003.parquet` is missing, as after an interrupted download."""
    counts = [int(part[1]) for name in names if (part := re.search(r"-of-(\d+)\.parquet$", name))]
    return bool(names) and all(count == len(names) for count in counts)
