"""`elf tokenize`: files, or a built-in task, to a data folder."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o
from elfcli.corpus.tokenize import default_workers
from elfcli.ui.progress import stages

INPUTS = "Text, JSON lines, CSV, TSV or Parquet; globs; repeatable."
TASKS = "Task instead of files: owt, de-en, xsum (public data), toy-de-en, ... (generated)."
TRAIN = "Train a SentencePiece tokenizer of SIZE pieces on the input."
LENGTH = "Sequence length for which the closing table counts what will be cut."


def tokenize(
    output: Annotated[
        Path | None, o.option("--output -o", "DIR", "Data folder to write; by default data/ and what it holds.")
    ] = None,
    input_: Annotated[list[str] | None, o.option("--input -i", "FILE", INPUTS)] = None,
    validation: Annotated[
        list[str] | None, o.option("--validation", "FILE", "Files of the validation split; globs; repeatable.")
    ] = None,
    task: Annotated[str | None, o.option("--task", "TASK", TASKS)] = None,
    seed: Annotated[int, o.option("--seed", "", "Seed of a built-in task.", **o.SEEDS)] = 0,
    text_key: Annotated[str | None, o.option("--text-key", "KEY", "Column of the text.")] = None,
    source_key: Annotated[str | None, o.option("--source-key", "KEY", "Column of the source, for pairs.")] = None,
    target_key: Annotated[str | None, o.option("--target-key", "KEY", "Column of the target, for pairs.")] = None,
    tokenizer: Annotated[
        str | None, o.option("--tokenizer", "NAME", "Tokenizer: folder or Hub name; by default T5's.")
    ] = None,
    train_tokenizer: Annotated[int | None, o.option("--train-tokenizer", "SIZE", TRAIN, min=4, max=1_000_000)] = None,
    pack: Annotated[
        int | None, o.option("--pack", "LENGTH", "Join texts, eos between, into full sequences.", min=1, max=1_000_000)
    ] = None,
    max_length: Annotated[int | None, o.option("--max-length", "", LENGTH, min=1)] = None,
    max_input_length: Annotated[
        int | None, o.option("--max-input-length", "", "The same for the condition.", min=0)
    ] = None,
    workers: Annotated[
        int | None, o.option("--workers", "", "Processes; by default by size of input and machine.", min=1)
    ] = None,
    skip_bad: Annotated[bool, o.option("--skip-bad", "", "Count malformed lines instead of stopping.")] = False,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace a data folder that is there.")] = False,
) -> None:
    """Tokenize text files, or a built-in task, into a data folder that `elf train` reads."""
    summary = tokenized(
        output,
        inputs=tuple(input_ or ()),
        validation=tuple(validation or ()),
        task=task,
        seed=seed,
        text_key=text_key,
        source_key=source_key,
        target_key=target_key,
        tokenizer=tokenizer,
        train_tokenizer=train_tokenizer,
        pack=pack,
        workers=workers,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    print_summary(summary, max_length, max_input_length)


def tokenized(output: Path | None, workers: int | None, **options):
    """The `Summary` of a `Job` with these options. output and workers: None chooses them."""
    from elfcli.corpus.public import SOURCES, default_folder
    from elfcli.corpus.tokenize import Job, tokenize
    from elfcli.ui.progress import say

    inputs, task = options["inputs"], options["task"]
    if output is None:
        output = default_folder(task, inputs, options["tokenizer"] or options["train_tokenizer"])
        say(f"no --output: the data goes to {output}")
    workers = workers or default_workers([*inputs, *options["validation"]], large=task in SOURCES)
    with stages() as progress:
        return tokenize(Job(output, workers=workers, **options), progress)


def print_summary(summary, max_length: int | None, max_input_length: int | None) -> None:
    """Prints examples, lengths and cuts of each split on stdout."""
    from elfcli.data.lengths import fitting_lengths, percentiles, truncated_counts
    from elfcli.ui.table import aligned

    conditional = len(summary.keys) == 2
    longest, source = fitting_lengths(summary.splits["train"].lengths)
    limit = max_length or longest
    input_limit = (min(source, limit // 2) if max_input_length is None else max_input_length) if conditional else 0
    keys = " -> ".join(f"'{key}'" for key in summary.keys)
    typer.echo(f"{summary.output}: {keys}, vocabulary of {summary.vocab_size:,}")
    rows = [("split", "side", "examples", "tokens", "p50", "p90", "p99", "max", "cut")]
    for name, split in summary.splits.items():
        cuts = truncated_counts(split.lengths, limit, input_limit)
        for column, lengths in split.lengths.items():
            side = "source" if column == "condition_input_ids" else "target" if conditional else "text"
            figures = [len(lengths), int(lengths.sum()), *percentiles(lengths).values(), cuts[column]]
            rows.append((name, side, *(f"{figure:,}" for figure in figures)))
    typer.echo("\n".join(aligned(rows, numbers=range(2, 9))))
    tokens = sum(split.tokens for split in summary.splits.values())
    seconds = sum(split.seconds for split in summary.splits.values())
    typer.echo(f"{tokens:,} tokens in {seconds:.1f} s ({tokens / max(seconds, 1e-9):,.0f} tokens/s)")
    limits = f"max_length {limit}" + (f", max_input_length {input_limit}" if conditional else "")
    typer.echo(f"cut: rows that will be shortened at {limits}")
    for name, split in summary.splits.items():
        if split.bad:
            typer.echo(f"{name}: {split.bad:,} bad lines left out")
        if split.also_in_train:
            typer.echo(
                f"{name}: {split.also_in_train:,} of {split.documents:,} documents are in train, too: scores on them "
                "say nothing about new text"
            )
        if split.dropped_tokens:
            typer.echo(f"{name}: the last {split.dropped_tokens:,} tokens fill no sequence and are left out")
