"""`elf tokenize`: text files, or a built-in task, to a data folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elfcli.cli import options as o

if TYPE_CHECKING:
    from elfcli.corpus.tokenize import Summary

OUTPUT = "Data folder to write (default: a folder in data/ named after its content)."
INPUTS = "Text, JSON lines, CSV, TSV or Parquet; globs; repeatable."
TASKS = "Task instead of files: owt, de-en, xsum (public data), toy-de-en, ... (generated)."
TOKENIZER = "Tokenizer: folder or Hub name (default: T5's)."
TRAIN = "Train a SentencePiece tokenizer of SIZE pieces on the input."
PACK = "Join texts, separated by eos, into sequences of this length."
LENGTH = "Sequence length used to report how many rows will be truncated."
WORKERS = "Number of processes (default: by the size of input and machine)."


def tokenize(
    output: Annotated[Path | None, o.option("--output -o", "DIR", OUTPUT)] = None,
    input_: Annotated[list[str] | None, o.option("--input -i", "FILE", INPUTS)] = None,
    validation: Annotated[
        list[str] | None, o.option("--validation", "FILE", "Files of the validation split; globs; repeatable.")
    ] = None,
    task: Annotated[str | None, o.option("--task", "TASK", TASKS, autocompletion=o.complete_task)] = None,
    seed: Annotated[int, o.option("--seed", "S", "Seed of a generated task.", **o.SEEDS)] = 0,
    text_key: Annotated[str | None, o.option("--text-key", "KEY", "Column of the text.")] = None,
    source_key: Annotated[str | None, o.option("--source-key", "KEY", "Column of the source, for pairs.")] = None,
    target_key: Annotated[str | None, o.option("--target-key", "KEY", "Column of the target, for pairs.")] = None,
    tokenizer: Annotated[str | None, o.option("--tokenizer", "NAME", TOKENIZER)] = None,
    train_tokenizer: Annotated[int | None, o.option("--train-tokenizer", "SIZE", TRAIN, min=4, max=1_000_000)] = None,
    pack: Annotated[int | None, o.option("--pack", "LENGTH", PACK, min=1, max=1_000_000)] = None,
    max_length: Annotated[int | None, o.option("--max-length", "N", LENGTH, min=1)] = None,
    max_input_length: Annotated[
        int | None, o.option("--max-input-length", "N", "The same for the condition.", min=0)
    ] = None,
    workers: Annotated[int | None, o.option("--workers", "N", WORKERS, min=1)] = None,
    skip_bad: Annotated[bool, o.option("--skip-bad", "", "Skip and count malformed lines.")] = False,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace an existing data folder.")] = False,
) -> None:
    """Tokenize text files, or a built-in task, into a data folder that `elf train` reads.

    Example: elf tokenize -i train.csv --source-key de --target-key en --train-tokenizer 4000 -o data/my
    """
    from elfcli import api

    summary = api.tokenize(
        output, input=input_, validation=validation, task=task, seed=seed, text_key=text_key, source_key=source_key,
        target_key=target_key, tokenizer=tokenizer, train_tokenizer=train_tokenizer, pack=pack, workers=workers,
        skip_bad=skip_bad, overwrite=overwrite,
    )  # fmt: skip
    print_summary(summary, max_length, max_input_length)


def print_summary(summary: "Summary", max_length: int | None, max_input_length: int | None) -> None:
    """Print examples, lengths and truncated rows of each split."""
    from elfcli.data.lengths import fitting_lengths, percentiles, truncated_counts
    from elfcli.ui.table import aligned

    conditional = len(summary.keys) == 2
    longest, source = fitting_lengths(summary.splits["train"].lengths)
    limit = max_length or longest
    input_limit = (min(source, limit // 2) if max_input_length is None else max_input_length) if conditional else 0
    keys = " -> ".join(f"'{key}'" for key in summary.keys)
    typer.echo(f"{summary.output}: {keys}, vocabulary of {summary.vocab_size:,}")
    rows = [["split", "side", "examples", "tokens", "p50", "p90", "p99", "max", "truncated"]]
    for name, split in summary.splits.items():
        truncated = truncated_counts(split.lengths, limit, input_limit)
        for column, lengths in split.lengths.items():
            side = "source" if column == "condition_input_ids" else "target" if conditional else "text"
            figures = [len(lengths), int(lengths.sum()), *percentiles(lengths).values(), truncated[column]]
            rows.append([name, side, *(f"{figure:,}" for figure in figures)])
    typer.echo("\n".join(aligned(rows, numbers=range(2, 9))))
    tokens = sum(split.tokens for split in summary.splits.values())
    seconds = sum(split.seconds for split in summary.splits.values())
    typer.echo(f"{tokens:,} tokens in {seconds:.1f} s ({tokens / max(seconds, 1e-9):,.0f} tokens/s)")
    limits = f"max_length {limit}" + (f", max_input_length {input_limit}" if conditional else "")
    typer.echo(f"truncated: rows that training will shorten with {limits}")
    for name, split in summary.splits.items():
        if split.bad:
            typer.echo(f"{name}: {split.bad:,} malformed lines skipped")
        if split.also_in_train:
            typer.echo(
                f"{name}: {split.also_in_train:,} of {split.documents:,} documents are also in train: scores on them "
                "say nothing about new text"
            )
        if split.dropped_tokens:
            typer.echo(f"{name}: the last {split.dropped_tokens:,} tokens do not fill a sequence and are dropped")
