"""`elf resume`: continue a run exactly."""

from pathlib import Path
from typing import Annotated

from elfcli.cli import options as o

FALLBACK = "If the newest checkpoint is damaged, continue from the newest intact one."
OTHER_DATA = "Continue even if the data is not what the run was trained on."


@o.several_processes
def resume(
    run: Annotated[Path, o.run_argument("RUN", "Run folder of `elf train`, or folder of `elf distill`.")],
    fallback: Annotated[bool, o.option("--fallback", "", FALLBACK)] = False,
    other_data: Annotated[bool, o.option("--other-data", "", OTHER_DATA)] = False,
    sets: Annotated[
        list[str] | None, o.option("--set -s", "KEY=VALUE", "A setting to change; repeatable.", **o.SETTINGS)
    ] = None,
) -> None:
    """Continue a run from its newest checkpoint, as if it had never stopped.

    Example: elf resume runs/my --set steps=20000
    """
    from elfcli import api
    from elfcli.ui.progress import say

    api.resume(run, fallback=fallback, other_data=other_data, sets=sets or ())
    say(f"done: {run} (sample with `elf sample {run}`)")
