"""Evaluates the settings that have no result yet, for one seed or several."""

from dataclasses import replace
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.evaluation.evaluate import RESULTS_FILE, EvaluationJob, evaluate, open_results, pending_settings
from elfcli.outputs import check_output_file
from elfcli.parallel.agree import broadcast_from_first
from elfcli.sampling.gaps import evaluation_sources
from elfcli.sampling.generate import Options
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import evaluated, settings_of
from elfcli.scoring import check_metric_names
from elfcli.scoring.comparison import over_seeds
from elfcli.ui.progress import progress, say


def check_results_folder(folder: Path | None) -> None:
    """Raise InputError if results could not be written to the folder later."""
    if folder is not None:
        broadcast_from_first(lambda: check_output_file(folder / RESULTS_FILE, overwrite=True))


def evaluate_preset(
    loaded: LoadedModel,
    seeds: list[int],
    *,
    data: str | None = None,
    num_samples: int | None = None,
    batch_size: int = 64,
    protocol: str | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> list[dict]:
    """Return the results of every setting of a model's preset, scored by its task's metrics.

    protocol: of BLEU and ROUGE instead of the setting.
    """
    if protocol is not None:
        evaluation = loaded.config.evaluation.model_copy(update={"protocol": protocol})
        loaded = replace(loaded, config=loaded.config.model_copy(update={"evaluation": evaluation}))
    metrics = loaded.config.evaluation.metrics
    if not metrics:
        data_settings = loaded.config.data
        suggested = "gaps" if data_settings.gaps else "bleu" if data_settings.takes_sources else "ppl"
        raise InputError(f"no metrics to score by: pass --task, or --set 'metrics=[\"{suggested}\"]'")
    check_metric_names(metrics, "metrics")
    folder = output or loaded.folder / "eval" / f"step{loaded.step}-seed{seeds[0]}"
    settings, sources = settings_of(evaluated(loaded.config)), evaluation_sources(loaded, data, num_samples)
    job = EvaluationJob(loaded, tuple(settings), sources, metrics, folder, Options(seeds[0], batch_size), data)
    return without_draws(run_seeds("eval", job, seeds, overwrite))


def run_seeds(command: str, job: EvaluationJob, seeds: list[int], overwrite: bool) -> list[dict]:
    """Evaluate one seed, or several and average over them.

    Each seed has the folder that it has alone, or output/seedN. `elf sweep` shows finished results again; other
    commands refuse a folder of finished results.
    """
    if len(seeds) == 1:
        return _run(command, job, overwrite, show_again=command == "sweep")
    folder, ending = job.folder, f"-seed{seeds[0]}"
    default = folder.name.endswith(ending)
    found = []
    for seed in seeds:
        own = folder.with_name(folder.name.removesuffix(ending) + f"-seed{seed}") if default else folder / f"seed{seed}"
        options = replace(job.options, seed=seed)
        found.append(_run(command, replace(job, folder=own, options=options), overwrite, show_again=True))
    return over_seeds(found, seeds)


def _run(command: str, job: EvaluationJob, overwrite: bool, show_again: bool) -> list[dict]:
    """Evaluate the settings that have no result yet; return the results of all."""
    folder, settings, texts = job.folder, len(job.settings), len(job.sources.rows)
    with open_results(job, overwrite) as done:
        todo = len(pending_settings(job, done))
        if not todo and not show_again:
            raise InputError(f"{folder} already holds results; choose another --output or --seed, or pass --overwrite")
        what = data_description(job.model.config, job.data)
        say(f"{settings} settings of {texts} {what}, {settings - todo} already done, results in {folder}")
        with progress(command, todo * texts) as update:
            return evaluate(job, done, update)


def data_description(config: Config, data: str | None) -> str:
    """Return what is sampled: the split and the data."""
    if config.evaluates_free_texts:
        return "free samples"
    where = data or config.data.eval_data_path or config.data.data_path
    return f"examples of the evaluation data {where}" if data else f"validation examples of {where}"


def without_draws(results: list[dict]) -> list[dict]:
    """Return results without the value of each bootstrap draw."""
    return [{name: value for name, value in result.items() if name != "resampled"} for result in results]
