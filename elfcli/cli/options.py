"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
