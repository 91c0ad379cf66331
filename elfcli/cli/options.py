"""Options that several commands share, and the listing of commands."""

from pathlib import Path
from typing import Annotated

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
_PROCESSES = "Several processes (docs/pods.md)"

CoordinatorOption = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="HOST:PORT",
        help="Address of process 0; found out on SLURM and TPU slices.",
        rich_help_panel=_PROCESSES,
    ),
]
NumProcessesOption = Annotated[
    int | None,
    typer.Option("--num-processes", metavar="N", help="How many processes run.", rich_help_panel=_PROCESSES),
]
ProcessIdOption = Annotated[
    int | None,
    typer.Option("--process-id", metavar="I", help="Number of this one, from 0.", rich_help_panel=_PROCESSES),
]
JoinTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--join-timeout",
        metavar="SECONDS",
        min=1,
        max=86400,
        help="Time in which all have to come; 300.",
        rich_help_panel=_PROCESSES,
    ),
]


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
