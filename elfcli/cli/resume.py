"""`elf resume`: continue a run exactly."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o


@o.several_processes
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `elf train`.", autocompletion=o.runs)],
    fallback: Annotated[
        bool, o.option("--fallback", "", "If the newest checkpoint is damaged, go on from the newest intact one.")
    ] = False,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on though the data is not what the run was trained on so far.")
    ] = False,
    sets: o.SetOption = None,
) -> None:
    """Continue a run from its newest checkpoint, as if it had never stopped."""
    from elfcli.training.start import resume_run
    from elfcli.ui.progress import say

    resume_run(run, sets or (), fallback=fallback, other_data=other_data)
    say(f"done: {run} (sample with `elf sample --checkpoint {run}`)")
