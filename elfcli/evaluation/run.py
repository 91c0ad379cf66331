"""Evaluates the settings that have no result yet, for one seed or several."""

from pathlib import Path


def evaluated(
    loaded,
    seeds: list[int],
    data: str | None,
    num_samples: int | None,
    batch_size: int,
    output: Path | None,
    overwrite: bool,
) -> list[dict]:
    """The results of every setting of a model's preset, scored by its task's metrics."""
    from elfcli.errors import InputError
    from elfcli.evaluation.evaluate import EvaluationJob
    from elfcli.sampling.generate import Options
    from elfcli.sampling.settings import settings_of
    from elfcli.sampling.sources import sources_of

    metrics = loaded.config.evaluation.metrics
    if not metrics:
        wanted = "bleu" if loaded.config.data.max_input_length else "ppl"
        raise InputError(f"no metrics to score by: give --task, or --set 'metrics=[\"{wanted}\"]'")
    folder = output or loaded.folder / "eval" / f"step{loaded.step}-seed{seeds[0]}"
    settings, sources = tuple(settings_of(loaded.config.sampling)), sources_of(loaded, data, num_samples)
    evaluation = EvaluationJob(loaded, settings, sources, metrics, folder, Options(seeds[0], batch_size), data)
    return run_seeds("eval", evaluation, seeds, overwrite, what_is_sampled(loaded.config, data))


def run(command: str, evaluation, overwrite: bool, sampled: str, again: bool = True) -> list[dict]:
    """Evaluates the settings that have no result yet, with a progress line; returns the results of all.

    again: where all have one, show them once more; otherwise refuse.
    """
    from elfcli.errors import InputError
    from elfcli.evaluation.evaluate import evaluate, open_results, pending_settings
    from elfcli.ui.progress import progress, say

    folder, settings, texts = evaluation.folder, len(evaluation.settings), len(evaluation.sources.rows)
    with open_results(evaluation, overwrite) as done:
        todo = len(pending_settings(evaluation, done))
        if not todo and not again:
            raise InputError(f"{folder} holds results already; give another --output or --seed, or --overwrite")
        say(f"{settings} settings of {texts} {sampled}, {settings - todo} of them done already, results in {folder}")
        with progress(command, todo * texts) as update:
            return evaluate(evaluation, done, update)


def run_seeds(command: str, evaluation, seeds: list[int], overwrite: bool, sampled: str) -> list[dict]:
    """`run` for one seed; for several the mean over them, each in the folder that it has alone, or in output/seedN."""
    from dataclasses import replace

    from elfcli.scoring.seeds import over_seeds

    if len(seeds) == 1:
        return run(command, evaluation, overwrite, sampled, again=command == "sweep")
    folder, ending = evaluation.folder, f"-seed{seeds[0]}"
    named, found = folder.name.endswith(ending), []
    for seed in seeds:
        own = folder.with_name(folder.name.removesuffix(ending) + f"-seed{seed}") if named else folder / f"seed{seed}"
        options = replace(evaluation.options, seed=seed)
        found.append(run(command, replace(evaluation, folder=own, options=options), overwrite, sampled))
    return over_seeds(found, seeds)


def what_is_sampled(config, data: str | None) -> str:
    """The split and the data that the scores are of."""
    if not config.data.max_input_length:
        return "free samples"
    where = data or config.data.eval_data_path or config.data.data_path
    return f"examples of the evaluation data {where}" if data else f"validation examples of {where}"
