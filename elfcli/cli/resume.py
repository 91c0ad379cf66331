"""`elf resume`: continue a run exactly."""

from pathlib import Path
from typing import Annotated, Any

import typer

from elfcli.cli import options as o


@o.several_processes
def resume(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder of `elf train`, or folder of `elf distill`.", autocompletion=o.runs
        ),
    ],
    fallback: Annotated[
        bool, o.option("--fallback", "", "If the newest checkpoint is damaged, go on from the newest intact one.")
    ] = False,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on though the data is not what the run was trained on so far.")
    ] = False,
    sets: o.SetOption = None,
) -> None:
    """Continue a run from its newest checkpoint, as if it had never stopped."""
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.runs.rounds import is_distilled, remaining_rounds
    from elfcli.ui.progress import say

    resuming: dict[str, Any] = {"sets": sets or (), "fallback": fallback, "other_data": other_data}
    if broadcast_from_first(lambda: is_distilled(run)):
        from elfcli.training.distill import train_rounds

        todo = broadcast_from_first(lambda: remaining_rounds(run))
        if not todo:
            say("nothing is left to do: every round is finished")
        train_rounds(run, todo, **resuming)
    else:
        from elfcli.training.start import resume_run

        resume_run(run, **resuming)
    say(f"done: {run} (sample with `elf sample --checkpoint {run}`)")
