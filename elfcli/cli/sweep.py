"""`elf sweep`: find the best sampling settings of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o
from elfcli.cli.evaluate import load
from elfcli.cli.output import check_outputs, show_report, without_draws
from elfcli.evaluation.run import run_seeds, what_is_sampled

SWEEP_METRICS = ("bleu", "rouge", "ppl")


@o.several_processes
def sweep(
    checkpoint: Annotated[str | None, typer.Argument(metavar="CHECKPOINT", help="The same as --checkpoint.")] = None,
    named: o.CheckpointOption = None,
    steps: o.StepsOption = None,
    sampler: o.SamplerOption = None,
    gamma: o.GammaOption = None,
    cfg: o.CfgOption = None,
    w: o.ScCfgOption = None,
    time_schedule: o.TimeScheduleOption = None,
    time_shift: o.TimeShiftOption = None,
    candidates: o.CandidatesOption = None,
    configs: Annotated[Path | None, o.option("--configs", "FILE", "A list of sampling settings instead.")] = None,
    metrics: Annotated[
        str | None, o.option("--metrics", "bleu,rouge,ppl", "Scores; the first ranks. The task's by default.")
    ] = None,
    at_entropy: Annotated[
        str | None, o.option("--at-entropy", "real|NATS", "Interpolate the perplexity at this entropy.")
    ] = None,
    data: o.DataOption = None,
    num_samples: o.NumSamplesOption = None,
    seed: o.SeedOption = 0,
    seeds: o.SeedsOption = None,
    batch_size: o.BatchSizeOption = 64,
    json_file: Annotated[Path | None, o.option("--json", "FILE", "Results, best first.")] = None,
    plot: Annotated[Path | None, o.option("--plot", "FILE.png|.svg|.html", "Pictures of the results.")] = None,
    output: o.FolderOption = None,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Start over, whatever is there.")] = False,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Sample and score every combination of sampling settings, listed by cost; a stopped sweep goes on.

    --steps, --sampler, --gamma, --cfg, --w, --time-schedule and --candidates take several values with commas between,
    e.g. --steps 16,32,64. Without any, the settings of the task's preset (or of --configs) are swept.
    """
    from elfcli.errors import InputError
    from elfcli.sampling.settings import (
        SAMPLING_OPTIONS,
        check_used,
        combinations,
        option_values,
        settings_of,
        without_repeats,
    )
    from elfcli.scoring.plots import check_plot, draw
    from elfcli.scoring.seeds import seeds_of

    if checkpoint is not None and named is not None:
        raise InputError(f"two checkpoints: {checkpoint}, and --checkpoint {named}; give one")
    of_seeds = seeds_of(seed, seeds)
    values = (sampler, steps, gamma, cfg, w, time_schedule, time_shift, candidates)
    wanted = option_values(dict(zip(SAMPLING_OPTIONS, values, strict=True)))
    if configs is not None:
        if wanted:
            raise InputError("--configs and lists of values (--steps, --cfg, ...) exclude each other")
        sets = [*(sets or ()), f"sampling_configs_path={configs}"]
    if metrics is not None:
        sets = [*(sets or ()), f"metrics={known_metrics(metrics)}"]
    check_outputs(json_file, output, overwrite)
    check_plot(plot)
    from elfcli.evaluation.evaluate import EvaluationJob
    from elfcli.outputs import write_result
    from elfcli.sampling.generate import Options
    from elfcli.sampling.sources import sources_of
    from elfcli.scoring import comparison
    from elfcli.scoring.comparison import best_first
    from elfcli.ui.progress import is_first_process, say

    checkpoint, loaded = load(
        named if checkpoint is None else checkpoint,
        task=task,
        model=model,
        files=config or (),
        sets=sets or (),
        style=config_style,
    )
    presets, scores = loaded.config.sampling, loaded.config.evaluation.metrics
    settings = without_repeats(settings_of(presets)) if configs is not None else combinations(presets, wanted)
    check_used(loaded.config, wanted, settings)
    if not scores:
        raise InputError("no metrics to score by: give --metrics, or --task")
    entropy = comparison.wanted_entropy(at_entropy, scores)
    folder = output or loaded.folder / "sweep" / f"step{loaded.step}-seed{of_seeds[0]}"
    sources, options = sources_of(loaded, data, num_samples), Options(of_seeds[0], batch_size)
    evaluation = EvaluationJob(loaded, tuple(settings), sources, scores, folder, options, data)
    results = run_seeds("sweep", evaluation, of_seeds, overwrite, what_is_sampled(loaded.config, data))
    if not is_first_process():
        return
    show(results, settings, checkpoint, folder)
    if entropy is not None:
        typer.echo(comparison.at_entropy(results, entropy))
    if plot is not None:
        draw(results, plot, f"{checkpoint}, step {loaded.step}")
        say(f"pictures in {plot}")
    write_result(json_file, without_draws(best_first(results)), overwrite)


def known_metrics(text: str) -> list[str]:
    """The metrics of a comma-separated list, without duplicates."""
    from elfcli.errors import InputError, did_you_mean

    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in SWEEP_METRICS:
            expected = f"expected some of {', '.join(SWEEP_METRICS)}{did_you_mean(word, SWEEP_METRICS)}"
            raise InputError(f"--metrics {text}: '{word}': {expected}")
    return words


def show(results: list[dict], settings: list, checkpoint: str, folder: Path) -> None:
    """A line per setting, the cheapest first, the winner marked, and how to sample with it or with what is as good."""
    from elfcli.scoring.comparison import cost, verdict
    from elfcli.scoring.plots import strips

    found, by_cost = verdict(results), sorted(results, key=cost)
    marks = ["*" if result is found.best else " " for result in by_cost]
    show_report([(f"{mark} {result['name']}", result["scores"]) for mark, result in zip(marks, by_cost, strict=True)])
    for line in strips(results):
        typer.echo(line)
    typer.echo(f"{found.why}; samples and {len(results)} results in {folder}")
    setting = next(setting for setting in settings if setting.name == found.named["name"])
    what = "best" if found.best is not None else "named"
    typer.echo(f"{what}: elf sample --checkpoint {checkpoint} {setting.options}")
