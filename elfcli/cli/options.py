"""Options that several commands share, in groups, and the listing of commands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

SETTINGS, SAMPLING = {"rich_help_panel": "Settings"}, {"rich_help_panel": "How to sample"}
TABLES = {"rich_help_panel": "Tables and encodings"}
PROCESSES = {"rich_help_panel": "Several processes (docs/pods.md)"}
SEEDS = {"min": 0, "max": 2**32 - 1}


LOCAL = {"--output", "--json", "--trace", "--plot", "--data"}
"""Options whose files and folders must be local."""


def option(names: str, metavar: str, text: str, **more: Any) -> Any:
    """Return an option `--long -s` of a command; a flag has no metavar. more: further arguments of typer.Option."""
    if LOCAL.intersection(names.split()):
        more |= {"callback": local_only(names.split()[0])}
    return typer.Option(*names.split(), metavar=metavar or None, help=text, **more)


def local_only(name: str) -> Callable[[Any], Any]:
    """Return a callback of an option or argument that refuses addresses such as gs://bucket/run."""

    def check(value: Any) -> Any:
        if value is not None:
            from elfcli.outputs import refuse_address

            refuse_address(value, name)
        return value

    return check


def complete_task(incomplete: str) -> list[str]:
    """Complete the name of a task preset."""
    from elfcli.config.presets import task_names

    return [name for name in task_names() if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Complete the name of a model preset."""
    from elfcli.config.presets import model_names

    return [name for name in model_names() if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Complete runs in the working folder and in runs/, and folders on the way to others."""
    here = [path.as_posix() for pattern in ("*/config.toml", "runs/*/config.toml") for path in Path(".").glob(pattern)]
    found = [str(Path(path).parent) for path in here]
    start, _, name = incomplete.rpartition("/")
    inside = Path(start or ("/" if incomplete.startswith("/") else ".")).expanduser()
    for path in sorted(inside.glob(f"{name}*/")) if incomplete else ():
        shown = f"{start}/{path.name}" if "/" in incomplete else path.name
        found.append(shown if (path / "config.toml").is_file() else f"{shown}/")
    return sorted({path for path in found if path.startswith(incomplete)})


def complete_checkpoint(incomplete: str) -> list[str]:
    """Complete runs and the names of published models."""
    from elfcli.weights.names import PUBLISHED

    return [*complete_run(incomplete), *(name for name in PUBLISHED if name.startswith(incomplete))]


def run_argument(metavar: str, text: str) -> Any:
    """Return a positional argument that completes runs."""
    return typer.Argument(metavar=metavar, help=text, autocompletion=complete_run)


# --- groups: a decorator adds the options of a group to a command and passes them on as one value -------------------


def option_group(
    options: Mapping[str, Any], collect: Callable[[dict[str, Any]], dict[str, Any]], first: bool = False
) -> Any:
    """Return a decorator that adds options to a command. collect: turns their values into the command's arguments.

    options: annotated types by parameter name. first: their order; positional arguments stand before options.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collected(**values: Any) -> Any:
            return command(**collect({name: values.pop(name) for name in options}), **values)

        own = signature(command)
        added = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                 for name, kind in options.items()]  # fmt: skip
        given = {name for name in own.parameters if name in GROUP_PARAMETERS}
        kept = [part.replace(kind=Parameter.KEYWORD_ONLY) for name, part in own.parameters.items() if name not in given]
        collected.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*added, *kept] if first else [*kept, *added]
        )
        collected.__annotations__ = {part.name: part.annotation for part in [*kept, *added]}
        return collected

    return decorate


@dataclass(frozen=True)
class SettingsOptions:
    """The layers of settings that a command was given."""

    task: str | None = None
    model: str | None = None
    config: tuple[Path, ...] = ()
    config_style: str | None = None
    sets: tuple[str, ...] = ()


STYLE = "Which defaults --config files assume (default: the reference's for flat YAML without a task, otherwise elf's)."
CHECKPOINT = ("Run, exported folder, checkpoint of the reference or PyTorch port, or Hub name (default: the newest run "
              "in the working folder or runs/, otherwise a published model).")  # fmt: skip
GROUP_PARAMETERS = {"settings", "checkpoint", "setting_options", "layout"}
"""Parameters of commands that a group of options fills."""

settings_options = option_group(
    {
        "task": Annotated[
            str | None,
            option("--task", "TASK", "Task preset, e.g. toy-de-en.", autocompletion=complete_task, **SETTINGS),
        ],
        "model": Annotated[
            str | None,
            option("--model", "MODEL", "Model preset, e.g. ELF-B.", autocompletion=complete_model, **SETTINGS),
        ],
        "config": Annotated[
            list[Path] | None,
            option("--config -c", "FILE", "Settings file (TOML or YAML); repeatable, later files win.", **SETTINGS),
        ],
        "config_style": Annotated[str | None, option("--config-style", "elf|reference", STYLE, **SETTINGS)],
        "sets": Annotated[
            list[str] | None, option("--set -s", "KEY=VALUE", "A setting, e.g. -s lr=2e-3; repeatable.", **SETTINGS)
        ],
    },
    lambda given: {
        "settings": SettingsOptions(
            **given | {"config": tuple(given["config"] or ()), "sets": tuple(given["sets"] or ())}
        )
    },
)
"""Adds --task, --model, --config, --config-style and --set; the command gets them as `settings`."""


def _one_checkpoint(given: dict[str, Any]) -> dict[str, Any]:
    positional, named = given["checkpoint_"], given["named"]
    if positional is not None and named is not None:
        from elfcli.errors import InputError

        raise InputError(f"two checkpoints: {positional}, and --checkpoint {named}; pass one")
    return {"checkpoint": named if positional is None else positional}


checkpoint_options = option_group(
    {
        "checkpoint_": Annotated[
            str | None, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT, autocompletion=complete_checkpoint)
        ],
        "named": Annotated[
            str | None, option("--checkpoint", "CHECKPOINT", "The same.", autocompletion=complete_checkpoint)
        ],
    },
    _one_checkpoint,
    first=True,
)
"""Adds the checkpoint as an argument, and as --checkpoint; the command gets it as `checkpoint`."""

sampling_options = option_group(
    {
        "steps": Annotated[str | None, option("--steps", "N", "Network steps.", **SAMPLING)],
        "sampler": Annotated[str | None, option("--sampler", "ode|sde|multistep|refine", "Solver.", **SAMPLING)],
        "gamma": Annotated[str | None, option("--gamma", "G", "Noise put back by the SDE.", **SAMPLING)],
        "cfg": Annotated[
            str | None, option("--cfg", "C", "Classifier-free guidance scale of the condition; 1: off.", **SAMPLING)
        ],
        "w": Annotated[str | None, option("--w --sc-cfg", "W", "Self-conditioning guidance scale.", **SAMPLING)],
        "time_schedule": Annotated[
            str | None, option("--time-schedule", "logit_normal|uniform|shifted", "Time grid.", **SAMPLING)
        ],
        "time_shift": Annotated[
            str | None, option("--time-shift", "S", "Shift of a shifted grid; above 1: more steps early.", **SAMPLING)
        ],
        "candidates": Annotated[
            str | None, option("--candidates", "N", "Texts drawn per source or template; one is kept.", **SAMPLING)
        ],
        "resample_noise": Annotated[
            bool, option("--resample-noise", "", "New noise for each pass of `refine` after the first.", **SAMPLING)
        ],
    },
    lambda given: {"setting_options": given | {"resample_noise": "true" if given["resample_noise"] else None}},
)
"""Adds the options that say how to sample; the command gets their texts by name as `setting_options`."""


def _join(given: dict[str, Any]) -> dict[str, Any]:
    from elfcli.parallel.join import join

    join(*given.values())
    return {}


COORDINATOR = "Address of process 0 (detected automatically on SLURM, Open MPI and TPU slices)."
TIMEOUT = "Seconds to wait for all processes to connect (default: 300)."
several_processes = option_group(
    {
        "coordinator": Annotated[str | None, option("--coordinator", "HOST:PORT", COORDINATOR, **PROCESSES)],
        "num_processes": Annotated[int | None, option("--num-processes", "N", "Number of processes.", **PROCESSES)],
        "process_id": Annotated[
            int | None, option("--process-id", "I", "Number of this process, from 0.", **PROCESSES)
        ],
        "join_timeout": Annotated[
            float | None, option("--join-timeout", "SECONDS", TIMEOUT, min=1, max=86400, **PROCESSES)
        ],
    },
    _join,
)
"""Adds the options of several processes; the command starts once this process has joined the others."""

layout_options = option_group(
    {
        "separator": Annotated[
            str | None,
            option("--separator", "CHAR|tab", "Character between columns (default: , in .csv, tab in .tsv).", **TABLES),
        ],
        "quoting": Annotated[
            str | None, option("--quoting", "csv|none", "Whether fields are quoted (default: csv in .csv).", **TABLES)
        ],
        "no_header": Annotated[
            bool, option("--no-header", "", "The first line is data; columns are called 1, 2, ...", **TABLES)
        ],
        "encoding": Annotated[
            str | None, option("--encoding", "NAME", "Encoding of text files (default: utf-8), e.g. utf-16.", **TABLES)
        ],
    },
    lambda given: {"layout": given | {"no_header": bool(given["no_header"])}},
)
"""Adds the options that say how text files are read; the command gets them by name as `layout`."""

# --- single options -------------------------------------------------------------------------------------------------

RawOption = Annotated[bool, option("--raw-weights", "", "Use the weights themselves, not their moving average (EMA).")]
StepOption = Annotated[int | None, option("--at-step", "N", "Step of the checkpoint (default: the newest).")]
DataOption = Annotated[str | None, option("--data", "DIR", "Evaluation data (default: the run's own).")]
NumSamplesOption = Annotated[
    int | None, option("--num-samples -n", "N", "Number of texts per sampling setting.", min=1)
]
SeedOption = Annotated[int, option("--seed", "S", "Seed of sampling.", **SEEDS)]
SeedsOption = Annotated[str | None, option("--seeds", "0,1,2", "Several seeds: report mean and standard deviation.")]
BatchSizeOption = Annotated[int, option("--batch-size", "N", "Texts sampled at once.", min=1)]
FolderOption = Annotated[Path | None, option("--output -o", "DIR", "Folder for samples and results.")]
PROTOCOL = "Scoring protocol of the paper; options that depart from it are named in the signature."
ProtocolOption = Annotated[str, option("--protocol", "paper", PROTOCOL)]
PROTOCOLS = ("paper; sacrebleu: its defaults (BLEU only: mixed case, no effective order); unicode: the paper's with "
             "tokenizers for the references' script; auto: unicode if the paper's are blind to it.")  # fmt: skip
BleuProtocolOption = Annotated[str, option("--protocol", "auto|paper|sacrebleu|unicode", PROTOCOLS)]
RougeProtocolOption = Annotated[str, option("--protocol", "auto|paper|unicode", PROTOCOLS)]
EvaluationProtocolOption = Annotated[str | None, option("--protocol", "auto|paper|sacrebleu|unicode", PROTOCOLS)]
TOKENIZER = "Tokenizer of sacrebleu, e.g. zh, ja-mecab, ko-mecab, char or flores200 (default: that of the protocol)."
TokenizerOption = Annotated[str | None, option("--tokenizer", "NAME", TOKENIZER)]
JsonOption = Annotated[Path | None, option("--json", "FILE", "Write the results to this file.")]
OverwriteOption = Annotated[bool, option("--overwrite", "", "Replace existing results.")]
UNKNOWN = "Accept texts of which more than 5% is unknown to the tokenizer."
AllowUnknownOption = Annotated[bool, option("--allow-unknown", "", UNKNOWN)]
LicenseOption = Annotated[str, option("--license", "ID", "License named in the model card.")]
SAMPLES = "Samples: rows with `id`, `generated`, and `reference` if known."
SamplesArgument = Annotated[Path, typer.Argument(metavar="F.jsonl", help=SAMPLES)]
REFERENCES = "References, matched by id or line order: JSON lines, CSV, TSV, Parquet, or text lines."
REFERENCE_KEY = "Column of the references (default: `reference`, `output` or `target`)."
ReferencesOption = Annotated[Path | None, option("--references", "FILE", REFERENCES)]
ReferenceKeyOption = Annotated[str | None, option("--reference-key", "KEY", REFERENCE_KEY)]


class Grouped(TyperGroup):
    """Lists commands by their `rich_help_panel`, in the order in which they were registered."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the lists of commands."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                row = name, command.get_short_help_str(limit=100)
                panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
