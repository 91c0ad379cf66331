"""`elf report`: one page about runs, to read and to share."""

from pathlib import Path
from typing import Annotated

from elfcli.cli import options as o


def report(
    runs: Annotated[list[Path], o.run_argument("RUN...", "Runs, or folders of runs.")],
    output: Annotated[Path, o.option("--output -o", "F.html", "Page to write.")] = Path("report.html"),
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace an existing page.")] = False,
) -> None:
    """Write one self-contained page about runs: curves, settings, scores, samples, and the machines they ran on.

    Example: elf report runs --output report.html
    """
    from elfcli.errors import InputError
    from elfcli.evaluation.run_report import report_data
    from elfcli.outputs import check_output_file, write_output
    from elfcli.runs.overview import overviews, runs_in
    from elfcli.ui.page import page
    from elfcli.ui.progress import say

    if output.suffix.lower() != ".html":
        raise InputError(f"--output {output}: the report is a page: use a name that ends in .html")
    check_output_file(output, overwrite)
    found, problems = overviews(runs_in(runs))
    if problems:
        raise InputError("\n".join(problems))
    write_output(output, page("report.html", report_data(found)), overwrite)
    say(f"report of {len(found)} run{'s' if len(found) > 1 else ''}: {output}")
