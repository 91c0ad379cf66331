"""Options that several commands share, and the listing of commands."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

_PANEL = "Settings"

TaskOption = Annotated[
    str | None, typer.Option("--task", metavar="TASK", help="Task preset, e.g. toy-de-en.", rich_help_panel=_PANEL)
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Model preset, e.g. ELF-B.", rich_help_panel=_PANEL)
]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Settings file (TOML or YAML); may be given again, later ones win.",
        rich_help_panel=_PANEL,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="One setting, e.g. -s lr=2e-3; may be given again.",
        rich_help_panel=_PANEL,
    ),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="RUN",
        help="Run, exported folder, file or folder of the reference or PyTorch port, or Hub name; by default the "
        "newest run here, else what is published.",
    ),
]
DataOption = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Evaluation data; by default the run's own.")
]
NumSamplesOption = Annotated[
    int | None, typer.Option("--num-samples", "-n", metavar="N", min=1, help="Texts, of each setting.")
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="S", min=0, max=2**32 - 1, help="Seed of the draws.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Texts sampled at once.")]
FolderOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for samples and results.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results here.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")]

# How to sample; `elf sweep` takes several values of each, with commas between.
SamplerOption = Annotated[str | None, typer.Option("--sampler", metavar="ode|sde", help="Solver.")]
StepsOption = Annotated[str | None, typer.Option("--steps", metavar="N", help="Network steps.")]
GammaOption = Annotated[str | None, typer.Option("--gamma", metavar="G", help="Noise put back (SDE).")]
CfgOption = Annotated[str | None, typer.Option("--cfg", metavar="C", help="Guidance scale of the condition; 1: off.")]
ScCfgOption = Annotated[
    str | None, typer.Option("--sc-cfg", "--w", metavar="W", help="Self-conditioning guidance scale.")
]
TimeScheduleOption = Annotated[
    str | None, typer.Option("--time-schedule", metavar="logit_normal|uniform", help="Time grid.")
]


def _process_option(name: str, metavar: str, text: str, **limits) -> Any:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel="Several processes (docs/pods.md)", **limits)


PROCESS_OPTIONS = {
    "coordinator": Annotated[
        str | None,
        _process_option("--coordinator", "HOST:PORT", "Address of process 0; found out on SLURM and TPU slices."),
    ],
    "num_processes": Annotated[int | None, _process_option("--num-processes", "N", "How many processes run.")],
    "process_id": Annotated[int | None, _process_option("--process-id", "I", "Number of this one, from 0.")],
    "join_timeout": Annotated[
        float | None,
        _process_option("--join-timeout", "SECONDS", "Time in which all have to come; 300.", min=1, max=86400),
    ],
}


def several_processes(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of several processes; it starts once this process has joined the others."""

    @wraps(command)
    def joined(**options: Any) -> None:
        from elfcli.parallel.join import join

        join(*(options.pop(name) for name in PROCESS_OPTIONS))
        command(**options)

    own = signature(command)
    more = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in PROCESS_OPTIONS.items()]  # fmt: skip
    joined.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    joined.__annotations__ = command.__annotations__ | PROCESS_OPTIONS
    return joined


class Grouped(TyperGroup):
    """Lists commands by their `rich_help_panel`, in the order in which they were registered."""

    def format_commands(self, ctx, formatter) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append(
                    (name, command.get_short_help_str(limit=100))
                )
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
