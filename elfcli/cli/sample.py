"""`elf sample`: texts from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli.options import (
    ConfigOption,
    CoordinatorOption,
    JoinTimeoutOption,
    ModelOption,
    NumProcessesOption,
    ProcessIdOption,
    SetOption,
    TaskOption,
)

CHECKPOINT_HELP = (
    "Run, exported folder, file or folder of the reference or PyTorch port, or Hub name; by default the newest run "
    "here, else what is published."
)
CheckpointOption = Annotated[str | None, typer.Option("--checkpoint", metavar="RUN", help=CHECKPOINT_HELP)]


def sample(
    checkpoint: CheckpointOption = None,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, max=1_000_000, help="Network steps.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="ode|sde", help="Solver.")] = None,
    gamma: Annotated[float | None, typer.Option(metavar="G", min=0, help="Noise put back (SDE).")] = None,
    cfg: Annotated[float | None, typer.Option(metavar="C", help="Guidance scale of the condition; 1: off.")] = None,
    sc_cfg: Annotated[float | None, typer.Option(metavar="W", help="Self-conditioning guidance scale.")] = None,
    time_schedule: Annotated[str | None, typer.Option(metavar="logit_normal|uniform", help="Time grid.")] = None,
    num_samples: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many texts.")] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", metavar="F.jsonl", help="Sources, one {'input': ...} per line.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Data folder whose sources are sampled.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="Seed of the draws.")] = 0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Texts sampled at once.")] = 64,
    at_step: Annotated[
        int | None, typer.Option(metavar="N", help="Checkpoint to take; the newest by default.")
    ] = None,
    raw_weights: Annotated[
        bool, typer.Option("--raw-weights", help="The weights themselves, not their EMA.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="F.jsonl", help="File to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    task: TaskOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    coordinator: CoordinatorOption = None,
    num_processes: NumProcessesOption = None,
    process_id: ProcessIdOption = None,
    join_timeout: JoinTimeoutOption = None,
) -> None:
    """Sample texts: one per source for conditional models, else --num-samples of them."""
    from elfcli.parallel.agree import by_first
    from elfcli.parallel.join import join

    join(coordinator, num_processes, process_id, join_timeout)

    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file
    from elfcli.ui.progress import is_first_process, progress, say

    flags = {"sampler": sampler, "steps": steps, "gamma": gamma, "cfg": cfg, "w": sc_cfg,
             "time_schedule": time_schedule}  # fmt: skip
    check_choices(sampler, time_schedule)
    if input_ is not None and num_samples is not None:
        raise InputError("--input and --num-samples exclude each other: one text is sampled per line of the input")
    check_numbers({"--gamma": gamma, "--cfg": cfg, "--sc-cfg": sc_cfg})
    by_first(lambda: check_output_file(output, overwrite))

    from elfcli.evaluation.newest import chosen_checkpoint

    checkpoint = by_first(lambda: chosen_checkpoint(checkpoint, task, model))
    from elfcli.evaluation.evaluate import sample_rows
    from elfcli.evaluation.examples import rows_of_file, rows_to_sample
    from elfcli.evaluation.generate import load_model
    from elfcli.evaluation.samples import write_samples
    from elfcli.evaluation.ways import chosen_setting

    loaded = load_model(
        checkpoint, ema=not raw_weights, step=at_step, task=task, model=model, files=config or (), sets=sets or ()
    )
    say(loaded.source.description)
    setting = chosen_setting(loaded.config.sampling, flags)
    if setting.sampler == "sde" and gamma is None:
        say(f"no --gamma: {setting.gamma:g}, the published preset's for about so many SDE steps")
    path = output or loaded.folder / "samples" / f"step{loaded.step}-{setting.name}-seed{seed}.jsonl"
    by_first(lambda: check_output_file(path, overwrite, "--output or --seed"))
    count = num_samples or loaded.config.evaluation.num_samples
    if input_ is not None:
        conditions, rows = rows_of_file(loaded, input_)
    else:
        conditions, rows = rows_to_sample(loaded, data, count)
    total = len(rows)
    say(f"{setting.name}, {total} texts to {path}")
    with progress("sample", total) as update:
        samples = sample_rows(loaded, conditions, rows, setting, seed=seed, batch_size=batch_size, update=update)
    by_first(lambda: write_samples(path, samples, overwrite))
    if is_first_process():
        show(samples)


def check_choices(sampler: str | None, time_schedule: str | None) -> None:
    from elfcli.errors import InputError, did_you_mean

    for option, value, known in (
        ("--sampler", sampler, ("ode", "sde")),
        ("--time-schedule", time_schedule, ("logit_normal", "uniform")),
    ):
        if value is not None and value not in known:
            raise InputError(f"{option} {value}: expected {' or '.join(known)}{did_you_mean(value, known)}")


def check_numbers(options: dict[str, float | None]) -> None:
    from math import isfinite

    from elfcli.errors import InputError

    for option, value in options.items():
        if value is not None and not isfinite(value):
            raise InputError(f"{option} {value}: expected a finite number")


def show(samples: list[dict], count: int = 5) -> None:
    """The first few samples, on stdout."""
    for row in samples[:count]:
        for name in ("input", "generated", "reference"):
            if name in row:
                typer.echo(f"{name:>10}  {row[name]}")
        typer.echo("")
