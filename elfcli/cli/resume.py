"""`elf resume`: continue a run exactly."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli.options import CoordinatorOption, JoinTimeoutOption, NumProcessesOption, ProcessIdOption, SetOption


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `elf train`.")],
    fallback: Annotated[
        bool,
        typer.Option("--fallback", help="If the newest checkpoint is damaged, go on from the newest intact one."),
    ] = False,
    sets: SetOption = None,
    coordinator: CoordinatorOption = None,
    num_processes: NumProcessesOption = None,
    process_id: ProcessIdOption = None,
    join_timeout: JoinTimeoutOption = None,
) -> None:
    """Continue a run from its newest checkpoint, as if it had never stopped."""
    from elfcli.parallel.join import join

    join(coordinator, num_processes, process_id, join_timeout)

    from elfcli.training.start import resume_run
    from elfcli.ui.progress import say

    resume_run(run, sets or (), fallback=fallback)
    say(f"done: {run} (sample with `elf sample --checkpoint {run}`)")
