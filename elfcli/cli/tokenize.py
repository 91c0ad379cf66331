"""`elf tokenize`: files, or a built-in task, to a data folder."""

from pathlib import Path
from typing import Annotated

import typer

INPUT = "Input"
TOKENS = "Tokens"


def tokenize(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Data folder to write; by default data/ and what it holds."),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="FILE", help="Text, JSON lines, CSV, TSV or Parquet; globs; repeatable."),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Files of the validation split; globs; repeatable.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="Task instead of files: owt, de-en, xsum (public data), toy-de-en, ... (generated)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of a built-in task.")] = 0,
    text_key: Annotated[str | None, typer.Option(metavar="KEY", help="Column of the text.")] = None,
    source_key: Annotated[str | None, typer.Option(metavar="KEY", help="Column of the source, for pairs.")] = None,
    target_key: Annotated[str | None, typer.Option(metavar="KEY", help="Column of the target, for pairs.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tokenizer: folder or Hub name; by default T5's.")
    ] = None,
    train_tokenizer: Annotated[
        int | None,
        typer.Option(
            metavar="SIZE", min=4, max=1_000_000, help="Train a SentencePiece tokenizer of SIZE pieces on the input."
        ),
    ] = None,
    pack: Annotated[
        int | None,
        typer.Option(metavar="LENGTH", min=1, max=1_000_000, help="Join texts, eos between, into full sequences."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Sequence length for which the closing table counts what will be cut.")
    ] = None,
    max_input_length: Annotated[int | None, typer.Option(min=0, help="The same for the condition.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default by size of input and machine.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count malformed lines instead of stopping.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data folder that is there.")] = False,
) -> None:
    """Tokenize text files, or a built-in task, into a data folder that `elf train` reads."""
    from elfcli.data.public import SOURCES, default_folder
    from elfcli.data.tokenize import Job
    from elfcli.data.tokenize import tokenize as run

    if output is None:
        output = default_folder(task, input_ or (), tokenizer or train_tokenizer)
        typer.echo(f"no --output: the data goes to {output}", err=True)
    job = Job(
        output=output,
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
        workers=workers or default_workers([*(input_ or ()), *(validation or ())], large=task in SOURCES),
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    with progress_display() as progress:
        summary = run(job, progress)
    print_summary(summary, max_length, max_input_length)


def default_workers(patterns: list[str], large: bool = False) -> int:
    """One process per core (at most 16) for inputs large enough (or said to be) to repay starting them, else one."""
    import glob
    import os

    total = sum(os.path.getsize(path) for pattern in patterns for path in glob.glob(os.path.expanduser(pattern)))
    return min(os.cpu_count() or 1, 16) if large or total > 50_000_000 else 1


def progress_display():
    """A bar on a terminal, a plain line per stage otherwise; both on stderr."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def display():
        console = Console(stderr=True)
        if not console.is_terminal:
            seen: set[str] = set()

            def plain(stage: str, done: int, total: int, documents: int) -> None:
                if stage not in seen:
                    seen.add(stage)
                    typer.echo(stage, err=True)

            yield plain
            return
        layout = ("{task.description:>24}", BarColumn(), TextColumn("{task.fields[documents]:,} documents"))
        with Progress(*layout, TimeRemainingColumn(), console=console, transient=True) as bars:
            tasks = {}

            def bar(stage: str, done: int, total: int, documents: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, documents=0)
                bars.update(tasks[stage], completed=done, total=total, documents=documents)

            yield bar

    return display()


def print_summary(summary, max_length: int | None, max_input_length: int | None) -> None:
    """The closing table, on stdout."""
    from elfcli.data.tokenize import cut_counts, percentiles

    conditional = len(summary.keys) == 2
    limit = max_length or (128 if conditional else 1024)
    input_limit = (limit // 2 if max_input_length is None else max_input_length) if conditional else 0
    keys = " -> ".join(f"'{key}'" for key in summary.keys)
    typer.echo(f"{summary.output}: {keys}, vocabulary of {summary.vocab_size:,}")
    heading = ("split", "side", "examples", "tokens", "p50", "p90", "p99", "max", "cut")
    rows = [heading]
    for name, split in summary.splits.items():
        cuts = cut_counts(split.lengths, limit, input_limit)
        for column, lengths in split.lengths.items():
            side = "source" if column == "condition_input_ids" else "target" if conditional else "text"
            figures = [len(lengths), int(lengths.sum()), *percentiles(lengths).values(), cuts[column]]
            rows.append((name, side, *(f"{figure:,}" for figure in figures)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(heading))]
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())
    tokens = sum(split.tokens for split in summary.splits.values())
    seconds = sum(split.seconds for split in summary.splits.values())
    typer.echo(f"{tokens:,} tokens in {seconds:.1f} s ({tokens / max(seconds, 1e-9):,.0f} tokens/s)")
    limits = f"max_length {limit}" + (f", max_input_length {input_limit}" if conditional else "")
    typer.echo(f"cut: rows that will be shortened at {limits}")
    for name, split in summary.splits.items():
        if split.bad:
            typer.echo(f"{name}: {split.bad:,} bad lines left out")
        if split.dropped_tokens:
            typer.echo(f"{name}: the last {split.dropped_tokens:,} tokens fill no sequence and are left out")
