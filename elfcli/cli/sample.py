"""`elf sample`: texts from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o
from elfcli.cli.evaluate import load
from elfcli.cli.trace_output import check_trace, traced_samples

INPUT = "Sources: JSON lines, CSV, TSV, Parquet, text lines; - for standard input."
TRACE = "Page or picture of the denoising to write; the samples stay the same."
SOURCE_KEY = "Column of the sources; by default `input`, `source`, or the training data's."


@o.several_processes
def sample(
    checkpoint: o.CheckpointOption = None,
    steps: o.StepsOption = None,
    sampler: o.SamplerOption = None,
    gamma: o.GammaOption = None,
    cfg: o.CfgOption = None,
    sc_cfg: o.ScCfgOption = None,
    time_schedule: o.TimeScheduleOption = None,
    time_shift: o.TimeShiftOption = None,
    candidates: o.CandidatesOption = None,
    num_samples: o.NumSamplesOption = None,
    input_: Annotated[Path | None, o.option("--input -i", "FILE", INPUT)] = None,
    source_key: Annotated[str | None, o.option("--source-key", "KEY", SOURCE_KEY)] = None,
    data: Annotated[str | None, o.option("--data", "DIR", "Data folder whose sources are sampled.")] = None,
    seed: o.SeedOption = 0,
    batch_size: o.BatchSizeOption = 64,
    at_step: o.StepOption = None,
    raw_weights: o.RawOption = False,
    output: Annotated[Path | None, o.option("--output -o", "F.jsonl", "File to write.")] = None,
    trace: Annotated[Path | None, o.option("--trace", "F.html|F.gif", TRACE)] = None,
    watch: Annotated[bool, o.option("--watch", "", "Show the denoising in the terminal.")] = False,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace the output file.")] = False,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Sample texts: one per source for conditional models, else --num-samples of them."""
    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.sampling.settings import SAMPLING_OPTIONS, one_value_each
    from elfcli.scoring.samples_meta import check_meta, write_meta
    from elfcli.ui.progress import is_first_process, progress, say

    values = (sampler, steps, gamma, cfg, sc_cfg, time_schedule, time_shift, candidates)
    given = one_value_each(dict(zip(SAMPLING_OPTIONS, values, strict=True)))
    if source_key is not None and input_ is None:
        raise InputError("--source-key names a column of the input: give --input too")
    broadcast_from_first(lambda: check_output_file(output, overwrite))
    broadcast_from_first(lambda: check_meta(output, overwrite))
    if trace is not None:
        broadcast_from_first(lambda: check_trace(trace, overwrite))

    settings = {"task": task, "model": model, "files": config or (), "sets": sets or (), "style": config_style}
    checkpoint, loaded = load(checkpoint, ema=not raw_weights, step=at_step, **settings)
    from elfcli.sampling.generate import Options, sample_rows
    from elfcli.sampling.made_by import origin_of, split_of
    from elfcli.sampling.settings import one_setting
    from elfcli.sampling.sources import rows_of_file, sources_of
    from elfcli.scoring.samples_file import write_samples
    from elfcli.scoring.text_quality import shortcomings

    setting = one_setting(loaded.config, given)
    if sampler == "sde" and gamma is None:
        say(f"no --gamma: {setting.sde_gamma:g}, that of the nearest SDE setting of the model's or published ones")
    path = output or loaded.folder / "samples" / (
        f"step{loaded.step}-{setting.name}-seed{seed}{'-raw' if raw_weights else ''}{name_of(input_)}.jsonl"
    )
    broadcast_from_first(lambda: check_output_file(path, overwrite, "--output or --seed"))
    broadcast_from_first(lambda: check_meta(path, overwrite))
    sources = (
        sources_of(loaded, data, num_samples)
        if input_ is None
        else rows_of_file(loaded, input_, source_key, num_samples)
    )
    say(f"{setting.name}, {len(sources.rows)} texts to {path}")
    options = Options(seed, batch_size)
    if trace is not None or watch:
        samples = traced_samples(loaded, sources, setting, options, trace, watch, overwrite)
    else:
        with progress("sample", len(sources.rows)) as update:
            samples = sample_rows(loaded, sources, setting, options, update)
    broadcast_from_first(lambda: write_samples(path, samples, overwrite))
    split = split_of(loaded.config, data) if input_ is None else f"file {input_.name}"
    broadcast_from_first(lambda: write_meta(path, origin_of(loaded, setting, seed, split), overwrite))
    if line := shortcomings([row["generated"] for row in samples]):
        say(line)
    if is_first_process():
        show(samples)


def name_of(input_: Path | None) -> str:
    """What the default output's name adds for an input file."""
    if input_ is None:
        return ""
    return "-stdin" if str(input_) == "-" else f"-{Path(input_.name.removesuffix('.gz')).stem}"


def show(samples: list[dict], count: int = 5) -> None:
    """The first few samples, on stdout."""
    for row in samples[:count]:
        for name in ("input", "generated", "reference"):
            if name in row:
                typer.echo(f"{name:>10}  {row[name]}")
        typer.echo("")
