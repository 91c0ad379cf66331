"""Turns files into a data folder: tokenizer, Arrow token columns, texts and `elf_data.json`.

    files -> chunks of documents -> token ids (in processes) -> packing -> Arrow file, in the order of the input

The folder is written under a temporary name and renamed when complete. Its content depends only on the input and the
settings, not on the number of workers.
"""

import glob
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from elfcli import __version__
from elfcli.corpus.encode import Chunk, Tokens, chunks_of, encode, pack_rows, sha256, write_arrow
from elfcli.corpus.public import SOURCES, T5_TOKENIZER, public_files
from elfcli.corpus.readers import Corpus, open_corpus, requested_keys
from elfcli.corpus.toy import TASKS, task_files
from elfcli.corpus.vocabulary import train_tokenizer
from elfcli.data.folder import METADATA_FILE
from elfcli.data.lengths import percentiles
from elfcli.data.tokenizers import TOKENIZER_FOLDER, eos_id, load_tokenizer, pad_id, vocab_size
from elfcli.errors import InputError, did_you_mean
from elfcli.outputs import check_writable, clear_killed, folder_written_whole

CHUNK = 1000  # documents per unit of work, and rows per Arrow record batch


@dataclass(frozen=True)
class Job:
    """The options of `elf tokenize`, whose help describes them."""

    output: Path
    inputs: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    task: str | None = None
    seed: int = 0
    text_key: str | None = None
    source_key: str | None = None
    target_key: str | None = None
    tokenizer: str | None = None
    train_tokenizer: int | None = None
    pack: int | None = None
    workers: int = 1
    skip_bad: bool = False
    overwrite: bool = False

    @property
    def trains_tokenizer(self) -> bool:
        """Return whether the job trains a tokenizer."""
        return self.train_tokenizer is not None or bool(self.task and not self.tokenizer)


@dataclass
class SplitSummary:
    """Facts about a written split. lengths: per column, the number of tokens of every row, int64 (rows,). written:
    facts recorded so that later starts do not have to scan the rows."""

    documents: int = 0
    examples: int = 0
    bad: int = 0
    dropped_tokens: int = 0
    also_in_train: int = 0
    seconds: float = 0.0
    lengths: dict[str, np.ndarray] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Return the number of tokens in all columns."""
        return int(sum(lengths.sum() for lengths in self.lengths.values()))


@dataclass(frozen=True)
class Summary:
    """Facts about a written data folder."""

    output: Path
    keys: tuple[str, ...]
    vocab_size: int
    splits: dict[str, SplitSummary]


Progress = Callable[[str, int, int, int], None]  # called with (stage, bytes read, bytes in total, documents so far)


def tokenize(job: Job, progress: Progress = lambda *state: None) -> Summary:
    """Write the data folder of a job. Raises InputError, without writing, if the job or its input is wrong."""
    output = job.output.expanduser().absolute()
    clear_killed(output)
    check_job(job)
    check_output(output, job.overwrite)
    check_writable(output)
    with folder_written_whole(output) as folder:
        if job.task in SOURCES:
            job = public_job(job, progress)
        elif job.task:
            paths = task_files(job.task, folder.parent, seed=job.seed)
            job = replace(job, inputs=(str(paths["train"]),), validation=(str(paths["validation"]),))
        summary = write_data(job, folder, progress)
        check_output(output, job.overwrite)
    return replace(summary, output=output)


def check_job(job: Job) -> None:
    """Raise InputError if the options contradict each other."""
    if job.task and (job.inputs or job.validation):
        raise InputError("--task provides the text: omit --input and --validation")
    known = [*TASKS, *SOURCES]
    if job.task and job.task not in known:
        raise InputError(f"No task '{job.task}'{did_you_mean(job.task, known)}: the tasks are {', '.join(known)}")
    if job.task in SOURCES and (job.text_key or job.source_key or job.target_key):
        raise InputError(f"--task {job.task} knows its columns: omit --text-key, --source-key and --target-key")
    if not job.task and not job.inputs:
        raise InputError("Nothing to tokenize: pass --input FILE, or --task for a built-in task")
    if job.tokenizer and job.train_tokenizer is not None:
        raise InputError("--tokenizer and --train-tokenizer exclude each other: pass one")


def public_job(job: Job, progress: Progress) -> Job:
    """Return the job for the task's public source data; its few empty rows are counted and skipped."""
    assert job.task is not None
    files = public_files(job.task, lambda line: progress(line, 0, 1, 0))
    columns = SOURCES[job.task].columns
    names = ("source_key", "target_key") if len(columns) == 2 else ("text_key",)
    keys: dict[str, Any] = dict(zip(names, columns, strict=True))
    tokenizer = job.tokenizer or (T5_TOKENIZER if job.train_tokenizer is None else None)
    inputs, validation = files["train"], files.get("validation", ())
    return replace(job, inputs=inputs, validation=validation, tokenizer=tokenizer, skip_bad=True, **keys)


def check_output(output: Path, overwrite: bool) -> None:
    """Raise InputError if `output` exists and may not be overwritten."""
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists already: choose another --output, or pass --overwrite to replace it")
    if not (output / METADATA_FILE).is_file():
        raise InputError(f"{output} is not an elf data folder, so it is not overwritten: choose another --output")


def write_data(job: Job, folder: Path, progress: Progress) -> Summary:
    """Write tokenizer, splits and metadata into `folder`."""
    keys = requested_keys(job.text_key, job.source_key, job.target_key)
    corpora = {"train": open_corpus(list(job.inputs), keys, job.skip_bad)}
    if job.validation:
        corpora["validation"] = open_corpus(list(job.validation), corpora["train"].keys, job.skip_bad)
    keys = corpora["train"].keys
    if job.pack is not None and len(keys) == 2:
        raise InputError("--pack joins texts without a source: it is not for pairs")
    tokenizer = make_tokenizer(job, corpora["train"], folder / TOKENIZER_FOLDER, progress)
    splits, held_out = {}, Counter(map(hashed, corpora.get("validation", ())))
    matches: set[int] = set()
    for name, corpus in corpora.items():
        part = folder / name if job.validation else folder
        part.mkdir(exist_ok=True)
        documents = with_progress(corpus, f"tokenizing {name}", progress)
        if name == "train":
            documents = record_matches(documents, held_out, matches)
        splits[name] = write_split(corpus, documents, part, job, tokenizer)
    if job.validation:
        splits["validation"].also_in_train = sum(held_out[text] for text in matches)
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}), encoding="utf-8")
    summary = Summary(job.output, keys, vocab_size(tokenizer), splits)
    metadata = describe(job, summary, corpora) | {"pad_id": pad_id(tokenizer), "eos_id": eos_id(tokenizer)}
    (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def hashed(texts: tuple[str, ...]) -> int:
    """Return a hash of a document's texts."""
    return xxhash.xxh3_64_intdigest("\0".join(texts))


def record_matches(
    documents: Iterable[tuple[str, ...]], hashes: Container[int], matches: set[int]
) -> Iterator[tuple[str, ...]]:
    """Yield the documents, and add those of their hashes that are in `hashes` to `matches`."""
    for texts in documents:
        if hashes and (text := hashed(texts)) in hashes:
            matches.add(text)
        yield texts


def make_tokenizer(job: Job, corpus: Corpus, folder: Path, progress: Progress) -> Any:
    """Return the tokenizer that the job trains or names, after saving it in `folder`."""
    folder.mkdir()
    if job.trains_tokenizer:
        documents = with_progress(corpus, "training the tokenizer", progress)
        train_tokenizer(chain.from_iterable(documents), folder, job.train_tokenizer)
        return load_tokenizer(folder)
    tokenizer = load_tokenizer(job.tokenizer or T5_TOKENIZER)
    pad_id(tokenizer), eos_id(tokenizer)
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def with_progress(corpus: Corpus, stage: str, progress: Progress) -> Iterator[tuple[str, ...]]:
    """Yield the documents, and call `progress` every thousand."""
    total = sum(path.stat().st_size for path in corpus.files)
    for texts in corpus:
        if corpus.reading.documents % CHUNK == 0:
            progress(stage, corpus.reading.bytes_done, total, corpus.reading.documents)
        yield texts
    progress(stage, total, total, corpus.reading.documents)


def write_split(
    corpus: Corpus, documents: Iterator[tuple[str, ...]], folder: Path, job: Job, tokenizer: Any
) -> SplitSummary:
    """Tokenize the documents of the corpus into `folder`."""
    start = time.perf_counter()
    summary = SplitSummary()
    tokenizer_folder = folder.parent if job.validation else folder
    encoded = encode(chunks_of(documents, CHUNK), tokenizer, tokenizer_folder / TOKENIZER_FOLDER, job.workers)
    if job.pack:
        names: tuple[str, ...] = ("input_ids",)
        batches: Iterable[list] = packed(encoded, job.pack, eos_id(tokenizer), summary)
    else:
        pairs = len(corpus.keys) == 2
        names = ("condition_input_ids", "input_ids", "input", "reference") if pairs else ("input_ids", "text")
        batches = ([*tokens, *zip(*chunk, strict=True)] for chunk, tokens in encoded)
    summary.lengths, summary.written = write_arrow(batches, names, folder)
    summary.examples = len(summary.lengths["input_ids"])
    summary.documents, summary.bad = corpus.reading.documents, corpus.reading.bad
    summary.seconds = time.perf_counter() - start
    if not summary.examples:
        name = folder.name if job.validation else "train"
        raise InputError(f"--pack {job.pack} is longer than all of {name} together ({summary.dropped_tokens} tokens)")
    return summary


def packed(
    encoded: Iterable[tuple[Chunk, list[Tokens]]], length: int, eos: int, summary: SplitSummary
) -> Iterator[list[Tokens]]:
    """Yield batches of full sequences, and write the number of remaining tokens to the summary."""
    rest = None
    for _, (tokens,) in encoded:
        rows, rest = pack_rows(rest, tokens, length, eos)
        summary.dropped_tokens = len(rest)
        if len(rows):
            yield [(rows.reshape(-1), np.full(len(rows), length, np.int64))]


def describe(job: Job, summary: Summary, corpora: dict[str, Corpus]) -> dict[str, Any]:
    """Return the content of `elf_data.json`, which depends only on the input and the settings."""
    seed = job.seed if job.task in TASKS else None
    return {
        "elf_version": __version__,
        "kind": "conditional" if len(summary.keys) == 2 else "text",
        "tokenizer": TOKENIZER_FOLDER,
        "tokenizer_source": "trained" if job.trains_tokenizer else job.tokenizer or T5_TOKENIZER,
        "vocab_size": summary.vocab_size,
        "settings": {"task": job.task, "seed": seed, "keys": summary.keys, "pack": job.pack,
                     "train_tokenizer": job.train_tokenizer, "skip_bad": job.skip_bad},
        "splits": {
            name: {
                "examples": split.examples,
                "documents": split.documents,
                "bad_lines": split.bad,
                "tokens": split.tokens,
                "dropped_tokens": split.dropped_tokens,
                "also_in_train": split.also_in_train,
                **split.written,
                "lengths": {column: percentiles(lengths) for column, lengths in split.lengths.items()},
                "sources": [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
                            for path in corpora[name].files],
            }
            for name, split in summary.splits.items()
        },
    }  # fmt: skip


def default_workers(patterns: list[str], large: bool = False) -> int:
    """Return one process per core (at most 16) for `large` or big input, and one process for small input."""
    total = sum(os.path.getsize(path) for pattern in patterns for path in glob.glob(os.path.expanduser(pattern)))
    return min(os.cpu_count() or 1, 16) if large or total > 50_000_000 else 1
