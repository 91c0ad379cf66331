"""Options that several commands share, and the listing of commands."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

SETTINGS, PROCESSES = {"rich_help_panel": "Settings"}, {"rich_help_panel": "Several processes (docs/pods.md)"}
SEEDS = {"min": 0, "max": 2**32 - 1}


def option(names: str, metavar: str, text: str, **more: Any) -> Any:
    """An option `--long -s` of a command; flags have no metavar. more: limits and what else typer.Option takes."""
    return typer.Option(*names.split(), metavar=metavar or None, help=text, **more)


def tasks(incomplete: str) -> list[str]:
    """Completion of task presets."""
    from elfcli.config.presets import task_names

    return [name for name in task_names() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Completion of model presets."""
    from elfcli.config.presets import model_names

    return [name for name in model_names() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Completion of runs here and in runs/, and of folders on the way to others."""
    here = [path.as_posix() for pattern in ("*/config.toml", "runs/*/config.toml") for path in Path(".").glob(pattern)]
    found = [str(Path(path).parent) for path in here]
    start, _, name = incomplete.rpartition("/")
    inside = Path(start or ("/" if incomplete.startswith("/") else ".")).expanduser()
    for path in sorted(inside.glob(f"{name}*/")) if incomplete else ():
        shown = f"{start}/{path.name}" if "/" in incomplete else path.name
        found.append(shown if (path / "config.toml").is_file() else f"{shown}/")
    return sorted({path for path in found if path.startswith(incomplete)})


def checkpoints(incomplete: str) -> list[str]:
    """Completion of runs and of published models."""
    from elfcli.weights.names import PUBLISHED

    return [*runs(incomplete), *(name for name in PUBLISHED if name.startswith(incomplete))]


TASK, MODEL = SETTINGS | {"autocompletion": tasks}, SETTINGS | {"autocompletion": models}
TaskOption = Annotated[str | None, option("--task", "TASK", "Task preset, e.g. toy-de-en.", **TASK)]
ModelOption = Annotated[str | None, option("--model", "MODEL", "Model preset, e.g. ELF-B.", **MODEL)]
ConfigOption = Annotated[
    list[Path] | None,
    option("--config -c", "FILE", "Settings file (TOML or YAML); may be given again, later ones win.", **SETTINGS),
]
STYLE = "Whose defaults a --config file means; by default the reference's where it is flat YAML without a task."
ConfigStyleOption = Annotated[str | None, option("--config-style", "elf|reference", STYLE, **SETTINGS)]
SetOption = Annotated[
    list[str] | None, option("--set -s", "KEY=VALUE", "One setting, e.g. -s lr=2e-3; may be given again.", **SETTINGS)
]

CHECKPOINTS = (
    "Run, exported folder, file or folder of the reference or PyTorch port, or Hub name; by default the newest run "
    "here, else what is published."
)
CheckpointOption = Annotated[str | None, option("--checkpoint", "RUN", CHECKPOINTS, autocompletion=checkpoints)]
RawOption = Annotated[bool, option("--raw-weights", "", "The weights themselves, not their EMA.")]
StepOption = Annotated[int | None, option("--at-step", "N", "Checkpoint; by default the newest.")]
DataOption = Annotated[str | None, option("--data", "DIR", "Evaluation data; by default the run's own.")]
NumSamplesOption = Annotated[int | None, option("--num-samples -n", "N", "Texts, of each setting.", min=1)]
SeedOption = Annotated[int, option("--seed", "S", "Seed of the draws.", **SEEDS)]
SeedsOption = Annotated[str | None, option("--seeds", "0,1,2", "Several seeds: mean and spread.")]
BatchSizeOption = Annotated[int, option("--batch-size", "N", "Texts sampled at once.", min=1)]
FolderOption = Annotated[Path | None, option("--output -o", "DIR", "Folder for samples and results.")]
PROTOCOL = "The paper's scoring; where an option departs from it, the signature says custom."
ProtocolOption = Annotated[str, option("--protocol", "paper", PROTOCOL)]
BLEU_PROTOCOL = "The paper's scoring, or sacrebleu's defaults: mixed case, no effective order."
BleuProtocolOption = Annotated[str, option("--protocol", "paper|sacrebleu", BLEU_PROTOCOL)]
JsonOption = Annotated[Path | None, option("--json", "FILE", "Write the results here.")]
OverwriteOption = Annotated[bool, option("--overwrite", "", "Replace results that are there.")]
LicenseOption = Annotated[str, option("--license", "ID", "Licence named in the model card.")]
SAMPLES = "Samples: `id`, `generated`, and `reference` where there is one."
SamplesArgument = Annotated[Path, typer.Argument(metavar="F.jsonl", help=SAMPLES)]
REFERENCES = "References, by id or line order: JSON lines, CSV, TSV, Parquet, or text lines."
REFERENCE_KEY = "Column of the references; by default `reference`, `output` or `target`."
ReferencesOption = Annotated[Path | None, option("--references", "FILE", REFERENCES)]
ReferenceKeyOption = Annotated[str | None, option("--reference-key", "KEY", REFERENCE_KEY)]

# How to sample; `elf sweep` takes several values of each, with commas between.
SamplerOption = Annotated[str | None, option("--sampler", "ode|sde|multistep", "Solver.")]
StepsOption = Annotated[str | None, option("--steps", "N", "Network steps.")]
GammaOption = Annotated[str | None, option("--gamma", "G", "Noise put back (SDE).")]
CfgOption = Annotated[str | None, option("--cfg", "C", "Guidance scale of the condition; 1: off.")]
ScCfgOption = Annotated[str | None, option("--sc-cfg --w", "W", "Self-conditioning guidance scale.")]
TimeScheduleOption = Annotated[str | None, option("--time-schedule", "logit_normal|uniform|shifted", "Time grid.")]
TimeShiftOption = Annotated[str | None, option("--time-shift", "S", "Of a shifted grid; above 1: earlier steps.")]
CandidatesOption = Annotated[
    str | None, option("--candidates", "N", "Texts drawn per source; the one most like the others is kept.")
]

COORDINATOR = "Address of process 0; found out on SLURM and TPU slices."
JOIN_TIMEOUT = "Time in which all have to come; 300."
PROCESS_OPTIONS = {
    "coordinator": Annotated[str | None, option("--coordinator", "HOST:PORT", COORDINATOR, **PROCESSES)],
    "num_processes": Annotated[int | None, option("--num-processes", "N", "How many processes run.", **PROCESSES)],
    "process_id": Annotated[int | None, option("--process-id", "I", "Number of this one, from 0.", **PROCESSES)],
    "join_timeout": Annotated[
        float | None, option("--join-timeout", "SECONDS", JOIN_TIMEOUT, min=1, max=86400, **PROCESSES)
    ],
}


def several_processes(command: Callable[..., Any]) -> Callable[..., None]:
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
                row = name, command.get_short_help_str(limit=100)
                panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
