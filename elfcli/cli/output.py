"""What scoring commands print and write."""

from pathlib import Path

import typer


def score_pairs(
    compute, samples: Path, references: Path | None, reference_key: str | None, json_file: Path | None, overwrite: bool
) -> None:
    """Scores samples against one reference each; writes the report and shows it.

    compute(generated, references): their `Score`. Errors as of `read_pairs` and `check_output_file`.
    """
    from elfcli.outputs import check_output_file, write_result
    from elfcli.scoring.report import Texts, reports
    from elfcli.scoring.samples_file import read_pairs
    from elfcli.scoring.samples_meta import read_meta

    check_output_file(json_file, overwrite, "--json")
    generated, real = read_pairs(samples, references, reference_key)
    found = compute(generated, real).as_dict()
    (score,) = reports([found], Texts(generated, real, real, read_meta(samples)))
    write_result(json_file, score, overwrite)
    show_report([("generated", [score])])


def show_report(rows: list[tuple[str, list[dict]]]) -> None:
    """The table of scores by (name, scores), and below it what they are and what made the texts."""
    from elfcli.scoring.report import provenance, table

    typer.echo("\n".join([table(rows), *provenance([scores for _, scores in rows])]))


def without_draws(results: list[dict]) -> list[dict]:
    """Results without the value of each bootstrap draw."""
    return [{name: value for name, value in result.items() if name != "resampled"} for result in results]


def check_outputs(json_file: Path | None, output: Path | None, overwrite: bool) -> None:
    """InputError where the results could not be written."""
    from elfcli.outputs import check_output_file
    from elfcli.parallel.agree import broadcast_from_first

    broadcast_from_first(lambda: check_output_file(json_file, overwrite, "--json"))
    if output is not None:
        broadcast_from_first(lambda: check_output_file(output / "results.jsonl", overwrite=True))
