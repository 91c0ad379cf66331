"""Prints and writes what scoring commands compute."""

from collections.abc import Sequence
from pathlib import Path

import typer


def score_pairs(
    metric_name: str, samples: Path, references: Path | None, reference_key: str | None, protocol: str,
    json_file: Path | None, overwrite: bool, tokenizer: str | None = None,
) -> None:  # fmt: skip
    """Score samples against their references; write the report and print it."""
    from elfcli.outputs import check_output_file, write_result
    from elfcli.scoring import metric
    from elfcli.scoring.protocol import AUTO, check_protocol
    from elfcli.scoring.report import reports
    from elfcli.scoring.samples_file import read_meta, read_pairs, several
    from elfcli.scoring.score import ScoreOptions, Texts

    scorer = metric(metric_name)
    check_protocol(protocol, scorer.name, (AUTO, *scorer.protocols))
    check_output_file(json_file, overwrite, "--json")
    generated, pairs = read_pairs(samples, references, reference_key)
    texts = Texts(generated, pairs, [several(pair)[0] for pair in pairs], read_meta(samples))
    (score,) = reports([scorer.compute(texts, ScoreOptions(protocol, tokenizer)).as_dict()], texts)
    write_result(json_file, score, overwrite)
    show_report([("generated", [score])])


def show_report(rows: Sequence[tuple[str, list[dict]]]) -> None:
    """Print the table of scores by (name, scores), and below it their signatures and provenance."""
    from elfcli.scoring.report import provenance, table

    typer.echo(table(rows))
    for name, scores in rows:
        for score in scores:
            if score["metric"] == "gaps" and score["details"].get("by_kind"):
                from elfcli.scoring.gaps import table as gap_table

                typer.echo(f"{name}, by kind of gap:\n{gap_table(score['details']['by_kind'])}\n")
    typer.echo("\n".join(provenance([scores for _, scores in rows])))


def show_samples(samples: list[dict], count: int = 5) -> None:
    """Print the first few samples."""
    for row in samples[:count]:
        for name in ("input", "template", "generated", "reference"):
            if name in row:
                typer.echo(f"{name:>10}  {row[name]}")
        typer.echo("")


def check_json(json_file: Path | None, overwrite: bool) -> None:
    """Raise InputError, in all processes, if the results could not be written."""
    from elfcli.outputs import check_output_file
    from elfcli.parallel.agree import broadcast_from_first

    broadcast_from_first(lambda: check_output_file(json_file, overwrite, "--json"))


FORMATS, FORMAT = ("table", "json"), "Output format."


def wants_json(format_name: str, flag: bool) -> bool:
    """Return whether JSON is wanted on standard output. flag: `--json`, the former name of `--format json`."""
    from elfcli.errors import InputError, did_you_mean
    from elfcli.ui.progress import say

    if flag:
        say("warning: --json is now --format json")
    if format_name not in ("table", "json"):
        raise InputError(
            f"--format {format_name}: expected table or json{did_you_mean(format_name, ('table', 'json'))}"
        )
    return flag or format_name == "json"
