"""`elf tokenize`: text files, or a built-in task, to a data folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elfcli.cli import options as o

if TYPE_CHECKING:
    from elfcli.corpus.tokenize import Summary

OUTPUT = "Data folder to write (default: a folder in data/ named after its content)."
INPUTS = ("Text, JSON lines, CSV, TSV or Parquet, also as .gz, .xz, .bz2, .zst; globs; addresses (https://, hf://, "
          "gs://, ...); a split of a Hub data set (OWNER/NAME:train); repeatable.")  # fmt: skip
SOURCE = "File of sources, one a line, instead of --input; repeatable."
TARGET = "File of their targets, line by line; repeatable."
TASKS = "Task instead of files: owt, de-en, xsum (public data), toy-de-en, ... (generated)."
TOKENIZER = "Tokenizer: folder or Hub name (default: T5's)."
TRAIN = "Train a SentencePiece tokenizer of SIZE pieces on the input."
KEEP = "Train one that keeps spaces, tabs and line breaks, e.g. for code."
PACK = "Join texts, separated by eos, into sequences of this length."
LENGTH = "Sequence length used to report how many rows will be truncated."
WORKERS = "Number of processes (default: by the size of input and machine)."


@o.layout_options
def tokenize(
    layout: dict[str, Any],
    output: Annotated[Path | None, o.option("--output -o", "DIR", OUTPUT)] = None,
    input_: Annotated[list[str] | None, o.option("--input -i", "FILE", INPUTS)] = None,
    validation: Annotated[
        list[str] | None, o.option("--validation", "FILE", "Files of the validation split; globs; repeatable.")
    ] = None,
    source: Annotated[list[str] | None, o.option("--source", "FILE", SOURCE)] = None,
    target: Annotated[list[str] | None, o.option("--target", "FILE", TARGET)] = None,
    validation_source: Annotated[
        list[str] | None, o.option("--validation-source", "FILE", "The same for the validation split.")
    ] = None,
    validation_target: Annotated[
        list[str] | None, o.option("--validation-target", "FILE", "The same for the validation split.")
    ] = None,
    task: Annotated[str | None, o.option("--task", "TASK", TASKS, autocompletion=o.complete_task)] = None,
    seed: Annotated[int, o.option("--seed", "S", "Seed of a generated task.", **o.SEEDS)] = 0,
    text_key: Annotated[str | None, o.option("--text-key", "KEY", "Column of the text; a.b: field b of a.")] = None,
    source_key: Annotated[str | None, o.option("--source-key", "KEY", "Column of the source, for pairs.")] = None,
    target_key: Annotated[str | None, o.option("--target-key", "KEY", "Column of the target, for pairs.")] = None,
    tokenizer: Annotated[str | None, o.option("--tokenizer", "NAME", TOKENIZER)] = None,
    train_tokenizer: Annotated[int | None, o.option("--train-tokenizer", "SIZE", TRAIN, min=4, max=1_000_000)] = None,
    keep_whitespace: Annotated[bool, o.option("--keep-whitespace", "", KEEP)] = False,
    allow_unknown: o.AllowUnknownOption = False,
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

    \b
    text, one a line:       elf tokenize -i book.txt
    JSON lines, compressed: elf tokenize -i 'part-*.jsonl.zst' --text-key body
    fields of an object:    elf tokenize -i wmt.jsonl --source-key translation.de --target-key translation.en
    two files of lines:     elf tokenize --source train.de --target train.en
    semicolons, UTF-16:     elf tokenize -i excel.csv --separator ';' --encoding utf-16
    tabs without header:    elf tokenize -i anki.txt --separator tab --no-header
    quoted TSV:             elf tokenize -i table.tsv --quoting csv
    an address:             elf tokenize -i https://example.org/train.jsonl.gz
    a data set of the Hub:  elf tokenize -i wmt/wmt14/de-en:train --source-key translation.de ...
    source code:            elf tokenize -i code.jsonl --train-tokenizer 8000 --keep-whitespace
    a built-in task:        elf tokenize --task toy-de-en
    """
    from elfcli import api

    summary = api.tokenize(
        output, input=input_, validation=validation, source=source, target=target,
        validation_source=validation_source, validation_target=validation_target, task=task, seed=seed,
        text_key=text_key, source_key=source_key, target_key=target_key, tokenizer=tokenizer,
        train_tokenizer=train_tokenizer, keep_whitespace=keep_whitespace, allow_unknown=allow_unknown, pack=pack,
        workers=workers, skip_bad=skip_bad, overwrite=overwrite, **layout,
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
    rows = [["split", "side", "examples", "tokens", "p50", "p90", "p99", "max", "truncated", "unknown", "changed"]]
    for name, split in summary.splits.items():
        truncated = truncated_counts(split.lengths, limit, input_limit)
        for column, lengths in split.lengths.items():
            side = "source" if column == "condition_input_ids" else "target" if conditional else "text"
            figures = [len(lengths), int(lengths.sum()), *percentiles(lengths).values(), truncated[column]]
            losses = split.losses[column]
            shares = [f"{losses.unknown / max(losses.tokens, 1):.2%}", f"{losses.changed / max(losses.checked, 1):.1%}"]
            rows.append([name, side, *(f"{figure:,}" for figure in figures), *shares])
    typer.echo("\n".join(aligned(rows, numbers=range(2, 11))))
    tokens = sum(split.tokens for split in summary.splits.values())
    seconds = sum(split.seconds for split in summary.splits.values())
    typer.echo(f"{tokens:,} tokens in {seconds:.1f} s ({tokens / max(seconds, 1e-9):,.0f} tokens/s)")
    limits = f"max_length {limit}" + (f", max_input_length {input_limit}" if conditional else "")
    typer.echo(f"truncated: rows that training will shorten with {limits}")
    for line in loss_lines(summary):
        typer.echo(line)
    for name, split in summary.splits.items():
        for what, count in split.notes.items():
            typer.echo(f"{name}: {what}: {count:,}")
        if split.bad:
            typer.echo(f"{name}: {split.bad:,} malformed lines skipped")
        if split.also_in_train:
            typer.echo(
                f"{name}: {split.also_in_train:,} of {split.documents:,} documents are also in train: scores on them "
                "say nothing about new text"
            )
        if split.dropped_tokens:
            typer.echo(f"{name}: the last {split.dropped_tokens:,} tokens do not fill a sequence and are dropped")


def loss_lines(summary: "Summary") -> list[str]:
    """Return the lines that explain the share of texts that do not come back from their tokens; none without any."""
    losses = [losses for split in summary.splits.values() for losses in split.losses.values()]
    checked, changed, spaced = (sum(getattr(one, name) for one in losses) for name in ("checked", "changed", "spaced"))
    if not changed:
        return []
    line = (f"changed: {changed:,} of {checked:,} texts checked (the first 100 of every 1,000) do not come back from "
            f"their tokens, {spaced:,} of them only in white space")  # fmt: skip
    advice = "; --train-tokenizer SIZE --keep-whitespace trains a tokenizer that keeps it"
    return [line + (advice if spaced else "")]
