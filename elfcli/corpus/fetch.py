"""Fetches inputs that are not local files: addresses that fsspec opens, and data sets of the Hub."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from elfcli.corpus.public import HUB_SPLIT, PublicSource, downloaded
from elfcli.errors import InputError, first_line

ADDRESS = re.compile(r"[A-Za-z][\w+.-]+(?:://|::)")
BLOCK = 1 << 20  # bytes

Report = Callable[[str, int, int, int], None]  # called with (stage, bytes done, bytes in total, 0)


def is_remote(pattern: str) -> bool:
    """Return whether a pattern is an address, or names a split of a data set of the Hub."""
    return bool(ADDRESS.match(pattern)) or (bool(HUB_SPLIT.fullmatch(pattern)) and not Path(pattern).exists())


@contextmanager
def local_files(patterns: Sequence[Sequence[str]], folder: Path, report: Report) -> Iterator[list[tuple[str, ...]]]:
    """Yield groups of patterns with those that are remote replaced by local files, which are downloaded to `folder`.

    Errors within the block name the addresses. Raises InputError if something cannot be fetched.
    """
    names: dict[str, str] = {}

    def local(pattern: str) -> list[str]:
        if not is_remote(pattern):
            return [pattern]
        if not ADDRESS.match(pattern):
            return hub_files(pattern, report)
        files = {str(fetch(one, opened, folder / str(len(names) + place), report)): one
                 for place, (one, opened) in enumerate(addresses(pattern))}  # fmt: skip
        names.update(files)
        return list(files)

    try:
        yield [tuple(file for pattern in group for file in local(pattern)) for group in patterns]
    except InputError as error:
        text = str(error)
        for file, address in names.items():
            text = text.replace(file, address)
        if text == str(error):
            raise
        raise InputError(text) from error


def addresses(pattern: str) -> list[tuple[str, Any]]:
    """Return the addresses that a pattern matches, each with what opens it."""
    from fsspec.core import url_to_fs

    scheme = pattern.split(":")[0]
    try:
        system, path = url_to_fs(pattern)
        paths = [path]
        if not scheme.startswith("http") and re.search(r"[*?\[]", path):  # a ? in http begins the query
            paths = sorted(map(str, system.glob(path)))
    except ImportError as error:
        raise InputError(f"{pattern}: {first_line(error)}") from error
    except ValueError as error:  # an unknown protocol
        raise InputError(f"{pattern}: {first_line(error)}; download the file first") from error
    except Exception as error:  # whatever a file system raises
        raise InputError(f"{pattern}: cannot be listed ({first_line(error)})") from error
    if not paths:
        raise InputError(f"{pattern}: no such file")
    single = pattern if paths == [path] else None
    return [(single or system.unstrip_protocol(one), lambda one=one: system.open(one, "rb")) for one in paths]


def fetch(address: str, opened: Callable[[], Any], folder: Path, report: Report) -> Path:
    """Download a file into a new folder and return it; it keeps its name, whose ending is its format."""
    file = folder / (Path(urlsplit(address).path).name or "text")
    folder.mkdir(parents=True)
    try:
        with opened() as source, file.open("wb") as target:
            size, done = getattr(source, "size", None) or 0, 0
            while block := source.read(BLOCK):
                target.write(block)
                done += len(block)
                report(f"fetching {address}", done, max(size, done), 0)
    except FileNotFoundError as error:  # also raised for hosts that cannot be reached
        cause = error.__cause__
        missing = cause is None or getattr(cause, "status", None) == 404
        raise InputError(f"{address}: {'no such file' if missing else f'cannot be fetched ({cause})'}") from error
    except Exception as error:  # each file system raises its own
        raise InputError(f"{address}: cannot be fetched ({first_line(error)})") from error
    return file


def hub_files(name: str, report: Report) -> list[str]:
    """Return the Parquet files of a split of a Hub data set, downloaded to the Hub's cache."""
    match = HUB_SPLIT.fullmatch(name)
    assert match is not None
    folder = f"{match['config']}/" if match["config"] else ""
    source = PublicSource(match["repo"], (), folder=folder, splits=(match["split"],))
    advice = "; pass its files instead, e.g. hf://datasets/OWNER/NAME/train.jsonl"
    files = list(downloaded(source, name, advice, lambda line: report(line, 0, 1, 0))[match["split"]])
    parents = [Path(file).parent for file in files]
    configs = {(parent.parent if parent.name == match["split"] else parent).name for parent in parents}
    if len(configs) > 1:
        example = f"{match['repo']}/{min(configs)}:{match['split']}"
        raise InputError(f"{name}: has several configurations ({', '.join(sorted(configs))}): name one, as {example}")
    return files
