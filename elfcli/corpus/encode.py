"""Encodes documents as token ids in several processes, packs them into full sequences and writes Arrow files."""

import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elfcli.data.plain_text import Losses, LossFinder, plain_encoder
from elfcli.data.tokenizers import load_tokenizer

CHUNK = 1000  # documents per unit of work, and rows per Arrow record batch
CHECKED = 100  # the first documents of each chunk, whose tokens are decoded and compared with their texts
Chunk = tuple[tuple[str, ...], ...]
Tokens = tuple[np.ndarray, np.ndarray]  # flat token ids, int32 (tokens,), and the length of every row, int64 (rows,)


def chunks_of(documents: Iterable[tuple[str, ...]], size: int) -> Iterator[Chunk]:
    """Yield the documents in tuples of `size`; the last one may be shorter."""
    rest = iter(documents)
    while chunk := tuple(islice(rest, size)):
        yield chunk


class Side(NamedTuple):
    """One side (text, source or target) of a chunk."""

    tokens: Tokens
    losses: Losses


@cache
def _finder_of_worker(folder: Path) -> LossFinder:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each process uses one thread
    return LossFinder(load_tokenizer(folder))


def encode_chunk(folder: Path, chunk: Chunk) -> list[Side]:
    """Return `encode_texts` with the tokenizer in a folder, which each process loads once."""
    return encode_texts(_finder_of_worker(folder), chunk)


def encode_texts(finder: LossFinder, chunk: Chunk) -> list[Side]:
    """Return the token ids of each side of the documents, without special tokens and truncation, and their losses."""
    sides = []
    for texts in zip(*chunk, strict=True):
        rows = plain_encoder(finder.tokenizer)(texts)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        tokens = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths
        sides.append(Side(tokens, finder.losses(texts, rows, CHECKED)))
    return sides


def encode(chunks: Iterable[Chunk], tokenizer: Any, folder: Path, workers: int) -> Iterator[tuple[Chunk, list[Side]]]:
    """Yield chunks with their sides, in order. Two or more workers are processes that load `folder`'s tokenizer."""
    if workers <= 1:
        finder = LossFinder(tokenizer)
        for chunk in chunks:
            yield chunk, encode_texts(finder, chunk)
        return
    waiting: deque[tuple[Chunk, Future]] = deque()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(encode_chunk, folder, chunk)))
            if len(waiting) > 4 * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def pack_rows(rest: np.ndarray | None, tokens: Tokens, length: int, eos: int) -> tuple[np.ndarray, np.ndarray]:
    """Join rows, with eos between them, into full sequences int32 (n, length); return them and the remaining tokens.
    rest: tokens that remained from earlier rows, int32 (tokens,); None before the first."""
    values, lengths = tokens
    starts = np.cumsum(lengths) - lengths
    if rest is None:
        joined = np.insert(values, starts[1:], eos)
    else:
        joined = np.concatenate([rest, np.insert(values, starts, eos)])
    full = len(joined) // length * length
    return joined[:full].reshape(-1, length), joined[full:]


def write_arrow(
    batches: Iterable[Sequence], names: tuple[str, ...], folder: Path
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Write one Arrow file in the format of `datasets.save_to_disk`; return row lengths by token column, and facts.
    batches: per column, `Tokens` (for names that end in input_ids) or strings."""
    import datasets
    import pyarrow as pa

    tokens = [name for name in names if name.endswith("input_ids")]
    ids, text = datasets.List(datasets.Value("int32")), datasets.Value("string")
    features = datasets.Features({name: ids if name in tokens else text for name in names})
    schema = features.arrow_schema
    lengths: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int64)] for name in tokens}
    file, largest = "data-00000-of-00001.arrow", 0
    with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            arrays = []
            for name, column in zip(names, batch, strict=True):
                if name not in tokens:
                    arrays.append(pa.array(column, pa.string()))
                    continue
                values, row_lengths = column
                largest = max(largest, int(values.max(initial=0)))
                offsets = np.concatenate([[0], np.cumsum(row_lengths)]).astype(np.int32)
                arrays.append(pa.ListArray.from_arrays(offsets, pa.array(values), type=schema.field(name).type))
                lengths[name].append(row_lengths)
            stream.write_batch(pa.record_batch(arrays, schema=schema))
    fingerprint = sha256(folder / file)[:16]
    state: dict = {"_data_files": [{"filename": file}], "_fingerprint": fingerprint,
                   "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
                   "_output_all_columns": False, "_split": None}  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    written = {"largest_id": largest, "fingerprint": fingerprint, "bytes": (folder / file).stat().st_size}
    return {name: np.concatenate(parts) for name, parts in lengths.items()}, written


def sha256(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
