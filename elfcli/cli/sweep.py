"""`elf sweep`: find the best sampling settings of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elfcli.cli import options as o
from elfcli.scoring import MODULES

if TYPE_CHECKING:
    from elfcli.sampling.settings import SamplingSetting

METRICS = f"Scores, the first one ranks: {', '.join(MODULES)} (default: the task's)."
AT_ENTROPY = "Interpolate the perplexity at this entropy (default: real, for free texts of several settings)."


@o.several_processes
@o.settings_options
@o.sampling_options
@o.checkpoint_options
def sweep(
    checkpoint: str | None,
    settings: o.SettingsOptions,
    setting_options: dict[str, str | None],
    configs: Annotated[Path | None, o.option("--configs", "FILE", "A list of sampling settings instead.")] = None,
    metrics: Annotated[str | None, o.option("--metrics", "bleu,...", METRICS)] = None,
    at_entropy: Annotated[str | None, o.option("--at-entropy", "real|NATS", AT_ENTROPY)] = None,
    data: o.DataOption = None,
    num_samples: o.NumSamplesOption = None,
    seed: o.SeedOption = 0,
    seeds: o.SeedsOption = None,
    batch_size: o.BatchSizeOption = 64,
    protocol: o.EvaluationProtocolOption = None,
    json_file: Annotated[Path | None, o.option("--json", "FILE", "Write the results to this file, best first.")] = None,
    plot: Annotated[Path | None, o.option("--plot", "FILE.png|.svg|.html", "Plots of the results.")] = None,
    output: o.FolderOption = None,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Discard existing results and start over.")] = False,
) -> None:
    """Sample and score every combination of sampling settings. An interrupted sweep resumes.

    --steps, --sampler, --gamma, --cfg, --w, --time-schedule and --candidates take several comma-separated values.
    Without any, the settings of the task's preset (or of --configs) are compared.

    Example: elf sweep runs/my --steps 8,16,32 --cfg 1,1.5 --num-samples 200
    """
    from elfcli import api
    from elfcli.cli.output import check_json
    from elfcli.errors import InputError
    from elfcli.evaluation.evaluate import EvaluationJob
    from elfcli.evaluation.run import check_results_folder, run_seeds, without_draws
    from elfcli.outputs import write_result
    from elfcli.sampling.gaps import evaluation_sources
    from elfcli.sampling.generate import Options
    from elfcli.sampling.settings import check_used, combinations, evaluated, option_values
    from elfcli.scoring import check_metric_names
    from elfcli.scoring.comparison import REAL, best_first, perplexity_at, seeds_of, wanted_entropy
    from elfcli.scoring.plots import check_plot, draw
    from elfcli.ui.progress import is_first_process, say

    seed_list, wanted, layers = seeds_of(seed, seeds), option_values(setting_options), vars(settings).copy()
    if configs is not None:
        if wanted:
            raise InputError("--configs cannot be combined with lists of values (--steps, --cfg, ...)")
        layers["sets"] = [*layers["sets"], f"sampling_configs_path={configs}"]
    if metrics is not None:
        names = list(dict.fromkeys(word.strip() for word in metrics.split(",")))
        check_metric_names(names, f"--metrics {metrics}")
        layers["sets"] = [*layers["sets"], f"metrics={names}"]
    if protocol is not None:
        layers["sets"] = [*layers["sets"], f"protocol={protocol}"]
    check_json(json_file, overwrite)
    check_results_folder(output)
    check_plot(plot)

    loaded = api.load(checkpoint, **layers).loaded
    scores, compared = loaded.config.evaluation.metrics, combinations(evaluated(loaded.config), wanted)
    check_used(loaded.config, wanted, compared)
    if not scores:
        raise InputError("no metrics to score by: pass --metrics, or --task")
    if at_entropy is None and "ppl" in scores and len(compared) > 1 and loaded.config.evaluates_free_texts:
        at_entropy = REAL
    entropy = wanted_entropy(at_entropy, scores)
    folder = output or loaded.folder / "sweep" / f"step{loaded.step}-seed{seed_list[0]}"
    sources, options = evaluation_sources(loaded, data, num_samples), Options(seed_list[0], batch_size)
    job = EvaluationJob(loaded, tuple(compared), sources, scores, folder, options, data)
    results = run_seeds("sweep", job, seed_list, overwrite)
    if not is_first_process():
        return
    show(results, compared, loaded.name, folder)
    if entropy is not None:
        typer.echo(perplexity_at(results, entropy))
    if plot is not None:
        draw(results, plot, f"{loaded.name}, step {loaded.step}")
        say(f"plots in {plot}")
    write_result(json_file, without_draws(best_first(results)), overwrite)


def show(results: list[dict], settings: Sequence["SamplingSetting"], checkpoint: str, folder: Path) -> None:
    """Print a line per setting, the cheapest first, with the winner marked, and how to sample with the best setting."""
    from elfcli.cli.output import show_report
    from elfcli.scoring.comparison import cost, verdict
    from elfcli.scoring.plots import strips

    found, by_cost = verdict(results), sorted(results, key=cost)
    marks = ["*" if result is found.best else " " for result in by_cost]
    show_report([(f"{mark} {result['name']}", result["scores"]) for mark, result in zip(marks, by_cost, strict=True)])
    for line in strips(results):
        typer.echo(line)
    typer.echo(f"{found.why}; samples and {len(results)} results in {folder}")
    setting = next(setting for setting in settings if setting.name == found.named["name"])
    what = "best" if found.best is not None else "suggested"
    typer.echo(f"{what}: elf sample {checkpoint} {setting.options}")
