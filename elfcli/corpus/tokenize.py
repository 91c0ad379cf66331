"""Turns files into a data folder: tokenizer, Arrow token columns, texts and `elf_data.json`.

    files -> chunks of documents -> token ids (in processes) -> packing -> Arrow file, in the order of the input

The folder is written under a temporary name and renamed when complete. Its content depends only on the input and the
settings, not on the number of workers.
"""

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
from elfcli.corpus.encode import CHUNK, Chunk, Side, Tokens, chunks_of, encode, pack_rows, sha256, write_arrow
from elfcli.corpus.fetch import local_files
from elfcli.corpus.files import DEFAULT_LAYOUT, Layout
from elfcli.corpus.public import SOURCES, T5_TOKENIZER, public_files
from elfcli.corpus.readers import Corpus, Keys, open_corpus, open_parallel, requested_keys
from elfcli.corpus.toy import TASKS, task_files
from elfcli.corpus.vocabulary import train_tokenizer
from elfcli.data.folder import METADATA_FILE
from elfcli.data.lengths import percentiles
from elfcli.data.plain_text import Losses, check_unknown, keeps_whitespace
from elfcli.data.tokenizers import TOKENIZER_FOLDER, eos_id, load_tokenizer, pad_id, vocab_size
from elfcli.errors import InputError, did_you_mean
from elfcli.outputs import check_writable, clear_killed, folder_written_whole, refuse_address

EARLY = 10  # chunks after which texts with too many unknown tokens are refused, before all of them are read
BIG = 50_000_000  # bytes of input from which several processes tokenize it


@dataclass(frozen=True)
class Job:
    """The options of `elf tokenize`, whose help describes them."""

    output: Path
    inputs: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    validation_sources: tuple[str, ...] = ()
    validation_targets: tuple[str, ...] = ()
    layout: Layout = DEFAULT_LAYOUT
    task: str | None = None
    seed: int = 0
    text_key: str | None = None
    source_key: str | None = None
    target_key: str | None = None
    tokenizer: str | None = None
    train_tokenizer: int | None = None
    keep_whitespace: bool = False
    allow_unknown: bool = False
    pack: int | None = None
    workers: int | None = 1  # None: by the size of the input
    skip_bad: bool = False
    overwrite: bool = False

    @property
    def trains_tokenizer(self) -> bool:
        """Return whether the job trains a tokenizer."""
        return self.train_tokenizer is not None or bool(self.task and not self.tokenizer)

    @property
    def has_validation(self) -> bool:
        """Return whether there is a validation split."""
        return bool(self.validation or self.validation_sources)


@dataclass
class SplitSummary:
    """Facts about a written split. lengths: per column, the number of tokens of every row, int64 (rows,). losses: what
    the tokens of each column lose. notes: counts of lines that are not documents. written: facts recorded so that later
    starts do not have to scan the rows."""

    documents: int = 0
    examples: int = 0
    bad: int = 0
    dropped_tokens: int = 0
    also_in_train: int = 0
    seconds: float = 0.0
    lengths: dict[str, np.ndarray] = field(default_factory=dict)
    losses: dict[str, Losses] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
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


FILES = ("inputs", "validation", "sources", "targets", "validation_sources", "validation_targets")
"""Options of a job that name files."""
SIDES = {("input_ids", False): "text", ("condition_input_ids", True): "source", ("input_ids", True): "target"}
"""What the columns of texts, and of pairs (True), are called."""
Progress = Callable[[str, int, int, int], None]  # called with (stage, bytes read, bytes in total, documents so far)


def tokenize(job: Job, progress: Progress = lambda *state: None) -> Summary:
    """Write the data folder of a job. Raises InputError, without writing, if the job or its input is wrong."""
    refuse_address(job.output, "--output")
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
        patterns = [getattr(job, name) for name in FILES]
        with local_files(patterns, folder.parent / "fetched", progress) as local:
            files: dict[str, Any] = dict(zip(FILES, local, strict=True))
            summary = write_data(replace(job, **files), folder, progress)
        check_output(output, job.overwrite)
    return replace(summary, output=output)


def check_job(job: Job) -> None:
    """Raise InputError if the options contradict each other."""
    if job.task and any(getattr(job, name) for name in FILES):
        raise InputError("--task provides the text: omit --input and --validation")
    for split in ("", "validation_"):
        given = [bool(getattr(job, f"{split}{side}")) for side in ("sources", "targets")]
        if any(given) and not all(given):
            names = [f"--{split.replace('_', '-')}{side}" for side in ("source", "target")]
            raise InputError(f"{' and '.join(names)} belong together: pass both")
    if (job.sources and job.inputs) or (job.validation_sources and job.validation):
        raise InputError(
            "--source and --target replace --input (--validation-source: --validation): pass one or the other"
        )
    if job.sources and not job.validation and (job.text_key or job.source_key or job.target_key):
        raise InputError(
            "--source and --target name files of lines, which have no columns: omit --source-key and others"
        )
    if job.keep_whitespace and job.train_tokenizer is None:
        raise InputError("--keep-whitespace is for --train-tokenizer; an existing tokenizer keeps what it keeps")
    known = [*TASKS, *SOURCES]
    if job.task and job.task not in known:
        raise InputError(f"No task '{job.task}'{did_you_mean(job.task, known)}: the tasks are {', '.join(known)}")
    if job.task in SOURCES and (job.text_key or job.source_key or job.target_key):
        raise InputError(f"--task {job.task} knows its columns: omit --text-key, --source-key and --target-key")
    if not job.task and not job.inputs and not job.sources:
        raise InputError("Nothing to tokenize: pass --input FILE, --source and --target, or --task for a built-in task")
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
    corpora = open_corpora(job)
    keys = corpora["train"].keys
    if job.pack is not None and len(keys) == 2:
        raise InputError("--pack joins texts without a source: it is not for pairs")
    tokenizer = make_tokenizer(job, corpora, folder / TOKENIZER_FOLDER, progress)
    splits, held_out = {}, Counter(map(hashed, corpora.get("validation", ())))
    matches: set[int] = set()
    for name, corpus in corpora.items():
        part = folder / name if job.has_validation else folder
        part.mkdir(exist_ok=True)
        documents = with_progress(corpus, f"tokenizing {name}", progress)
        if name == "train":
            documents = record_matches(documents, held_out, matches)
        splits[name] = write_split(corpus, documents, part, job, tokenizer)
    if job.has_validation:
        splits["validation"].also_in_train = sum(held_out[text] for text in matches)
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}), encoding="utf-8")
    summary = Summary(job.output, keys, vocab_size(tokenizer), splits)
    metadata = describe(job, summary, corpora) | {"pad_id": pad_id(tokenizer), "eos_id": eos_id(tokenizer)}
    (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def open_corpora(job: Job) -> dict[str, Corpus]:
    """Return the corpora of the job's splits."""

    def opened(files: tuple[str, ...], sources: tuple[str, ...], targets: tuple[str, ...], keys: Keys) -> Corpus:
        if sources:
            return open_parallel(list(sources), list(targets), job.skip_bad, job.layout)
        return open_corpus(list(files), keys, job.skip_bad, job.layout)

    keys = requested_keys(job.text_key, job.source_key, job.target_key)
    corpora = {"train": opened(job.inputs, job.sources, job.targets, keys)}
    if job.has_validation:
        files = job.validation, job.validation_sources, job.validation_targets
        corpora["validation"] = opened(*files, keys or (() if job.sources else corpora["train"].keys))
    if len({len(corpus.keys) for corpus in corpora.values()}) > 1:
        raise InputError("the validation split holds pairs and the training data texts, or the reverse")
    return corpora


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


def make_tokenizer(job: Job, corpora: dict[str, Corpus], folder: Path, progress: Progress) -> Any:
    """Return the tokenizer that the job trains or names, after saving it in `folder`. The corpora keep the white space
    that it keeps."""
    folder.mkdir()
    tokenizer = None if job.trains_tokenizer else load_tokenizer(job.tokenizer or T5_TOKENIZER)
    if job.keep_whitespace if tokenizer is None else keeps_whitespace(tokenizer):
        for corpus in corpora.values():
            corpus.keep_space()
    if tokenizer is None:
        documents = with_progress(corpora["train"], "training the tokenizer", progress)
        train_tokenizer(chain.from_iterable(documents), folder, job.train_tokenizer, job.keep_whitespace)
        return load_tokenizer(folder)
    pad_id(tokenizer), eos_id(tokenizer)
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def with_progress(corpus: Corpus, stage: str, progress: Progress) -> Iterator[tuple[str, ...]]:
    """Yield the documents, and call `progress` every thousand."""
    total = corpus.size
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
    summary, name = SplitSummary(), folder.name if job.has_validation else "train"
    tokenizer_folder = folder.parent if job.has_validation else folder
    workers = default_workers(corpus.size) if job.workers is None else job.workers
    encoded = encode(chunks_of(documents, CHUNK), tokenizer, tokenizer_folder / TOKENIZER_FOLDER, workers)
    pairs = len(corpus.keys) == 2
    columns: tuple[str, ...] = ("condition_input_ids", "input_ids") if pairs else ("input_ids",)
    tokenized = with_losses(encoded, {column: f"{name}, {SIDES[column, pairs]}" for column in columns}, summary, job)
    if job.pack:
        names: tuple[str, ...] = columns
        batches: Iterable[list] = packed(tokenized, job.pack, eos_id(tokenizer), summary)
    else:
        names = (*columns, *(("input", "reference") if pairs else ("text",)))
        batches = ([*tokens, *zip(*chunk, strict=True)] for chunk, tokens in tokenized)
    summary.lengths, summary.written = write_arrow(batches, names, folder)
    summary.examples = len(summary.lengths["input_ids"])
    summary.documents, summary.bad = corpus.reading.documents, corpus.reading.bad
    summary.notes = {what: count for what, count in sorted(corpus.reading.notes.items()) if count}
    summary.seconds = time.perf_counter() - start
    if not summary.examples:
        raise InputError(f"--pack {job.pack} is longer than all of {name} together ({summary.dropped_tokens} tokens)")
    return summary


def with_losses(
    encoded: Iterable[tuple[Chunk, list[Side]]], sides: dict[str, str], summary: SplitSummary, job: Job
) -> Iterator[tuple[Chunk, list[Tokens]]]:
    """Yield the chunks' tokens, and add up their losses in the summary. sides: what messages call each column.

    Raises InputError if too many tokens are unknown, after the first chunks or at the end; reports fewer.
    """

    def check(scope: str, report: bool) -> None:
        for column, side in sides.items():
            fix = "choose another --tokenizer or --train-tokenizer SIZE"
            check_unknown(summary.losses[column], f"{side}{scope}", fix, job.allow_unknown, report)

    summary.losses = {column: Losses() for column in sides}
    for number, (chunk, parts) in enumerate(encoded, 1):
        for losses, part in zip(summary.losses.values(), parts, strict=True):
            losses += part.losses
        if number == EARLY:
            check(f", first {EARLY * CHUNK:,} documents", report=False)
        yield chunk, [part.tokens for part in parts]
    check("", report=True)


def packed(
    tokenized: Iterable[tuple[Chunk, list[Tokens]]], length: int, eos: int, summary: SplitSummary
) -> Iterator[list[Tokens]]:
    """Yield batches of full sequences, and write the number of remaining tokens to the summary."""
    rest = None
    for _, (tokens,) in tokenized:
        rows, rest = pack_rows(rest, tokens, length, eos)
        summary.dropped_tokens = len(rest)
        if len(rows):
            yield [(rows.reshape(-1), np.full(len(rows), length, np.int64))]


def describe(job: Job, summary: Summary, corpora: dict[str, Corpus]) -> dict[str, Any]:
    """Return the content of `elf_data.json`, which depends only on the input and the settings."""
    seed = job.seed if job.task in TASKS else None
    options = {name: value for name, value in vars(job.layout).items() if value != getattr(DEFAULT_LAYOUT, name)}
    return {
        "elf_version": __version__,
        "kind": "conditional" if len(summary.keys) == 2 else "text",
        "tokenizer": TOKENIZER_FOLDER,
        "tokenizer_source": "trained" if job.trains_tokenizer else job.tokenizer or T5_TOKENIZER,
        "vocab_size": summary.vocab_size,
        "settings": {"task": job.task, "seed": seed, "keys": summary.keys, "pack": job.pack,
                     "train_tokenizer": job.train_tokenizer, "keep_whitespace": job.keep_whitespace,
                     "skip_bad": job.skip_bad, "layout": options},
        "splits": {
            name: {
                "examples": split.examples,
                "documents": split.documents,
                "bad_lines": split.bad,
                "tokens": split.tokens,
                "dropped_tokens": split.dropped_tokens,
                "also_in_train": split.also_in_train,
                "losses": {column: losses.record() for column, losses in split.losses.items()},
                "not_documents": split.notes,
                **split.written,
                "lengths": {column: percentiles(lengths) for column, lengths in split.lengths.items()},
                "sources": [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
                            for path in (*corpora[name].files, *corpora[name].targets)],
            }
            for name, split in summary.splits.items()
        },
    }  # fmt: skip


def default_workers(size: int) -> int:
    """Return one process per core (at most 16) for big input, in bytes, and one process for small input."""
    return min(os.cpu_count() or 1, 16) if size > BIG else 1
