"""`elf eval`: sample a task's evaluation split and score it."""

from pathlib import Path

import typer

from elfcli.cli import options as o


@o.several_processes
def evaluate(
    checkpoint: o.CheckpointOption = None,
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    data: o.DataOption = None,
    num_samples: o.NumSamplesOption = None,
    seed: o.SeedOption = 0,
    seeds: o.SeedsOption = None,
    batch_size: o.BatchSizeOption = 64,
    json_file: o.JsonOption = None,
    output: o.FolderOption = None,
    overwrite: o.OverwriteOption = False,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Sample a task's evaluation split with every setting of its preset, and score it by the task's metrics."""
    from elfcli.outputs import write_result
    from elfcli.scoring.seeds import seeds_of
    from elfcli.ui.progress import is_first_process

    wanted = seeds_of(seed, seeds)
    check_outputs(json_file, output, overwrite)
    settings = {"task": task, "model": model, "files": config or (), "sets": sets or (), "style": config_style}
    loaded = load(checkpoint, **settings)[1]
    results = evaluated(loaded, wanted, data, num_samples, batch_size, output, overwrite)
    if not is_first_process():
        return
    show_report([(result["name"], result["scores"]) for result in results])
    typer.echo(f"measured: {what_is_sampled(loaded.config, data)}")
    from elfcli.weights.names import STUDENTS, published_name
    from elfcli.weights.published import figures_of, summary

    network, student = loaded.config.network.model, published_name(Path(loaded.name.partition("@")[0]).name) in STUDENTS
    for line in summary(figures_of(task or loaded.config.data.task, network, student)):
        typer.echo(f"published for {network}: {line}")
    write_result(json_file, without_draws(results), overwrite)


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
    from elfcli.evaluation.evaluate import Evaluation
    from elfcli.sampling.generate import Options
    from elfcli.sampling.settings import settings_of
    from elfcli.sampling.sources import sources_of

    metrics = loaded.config.evaluation.metrics
    if not metrics:
        wanted = "bleu" if loaded.config.data.max_input_length else "ppl"
        raise InputError(f"no metrics to score by: give --task, or --set 'metrics=[\"{wanted}\"]'")
    folder = output or loaded.folder / "eval" / f"step{loaded.step}-seed{seeds[0]}"
    settings, sources = tuple(settings_of(loaded.config.sampling)), sources_of(loaded, data, num_samples)
    evaluation = Evaluation(loaded, settings, sources, metrics, folder, Options(seeds[0], batch_size), data)
    return run_seeds("eval", evaluation, seeds, overwrite, what_is_sampled(loaded.config, data))


def score_pairs(
    compute, samples: Path, references: Path | None, reference_key: str | None, json_file: Path | None, overwrite: bool
) -> None:
    """Scores samples against one reference each; writes the report and shows it.

    compute(generated, references): their `Score`. Errors as of `read_pairs` and `check_output_file`.
    """
    from elfcli.outputs import check_output_file, write_result
    from elfcli.scoring.report import Texts, reports
    from elfcli.scoring.samples_file import read_pairs
    from elfcli.scoring.samples_meta import read_meta

    check_output_file(json_file, overwrite, "--json")
    generated, real = read_pairs(samples, references, reference_key)
    found = compute(generated, real).as_dict()
    (score,) = reports([found], Texts(generated, real, real, read_meta(samples)))
    write_result(json_file, score, overwrite)
    show_report([("generated", [score])])


def show_report(rows: list[tuple[str, list[dict]]]) -> None:
    """The table of scores by (name, scores), and below it what they are and what made the texts."""
    from elfcli.scoring.report import provenance, table

    typer.echo("\n".join([table(rows), *provenance([scores for _, scores in rows])]))


def without_draws(results: list[dict]) -> list[dict]:
    """Results without the value of each bootstrap draw."""
    return [{name: value for name, value in result.items() if name != "resampled"} for result in results]


def check_outputs(json_file: Path | None, output: Path | None, overwrite: bool) -> None:
    """InputError where the results could not be written."""
    from elfcli.outputs import check_output_file
    from elfcli.parallel.agree import by_first

    by_first(lambda: check_output_file(json_file, overwrite, "--json"))
    if output is not None:
        by_first(lambda: check_output_file(output / "results.jsonl", overwrite=True))


def load(checkpoint: str | None, **settings):
    """(name, model) of the checkpoint that was given or is chosen; says which it is. settings: as of `load_model`."""
    from elfcli.parallel.agree import by_first
    from elfcli.ui.progress import say
    from elfcli.weights.newest import chosen_checkpoint

    name = by_first(lambda: chosen_checkpoint(checkpoint, settings["task"], settings["model"]))
    from elfcli.sampling.model import load_model

    loaded = load_model(name, **settings)
    say(loaded.source.description)
    return name, loaded


def run(command: str, evaluation, overwrite: bool, sampled: str, again: bool = True) -> list[dict]:
    """Evaluates the settings that have no result yet, with a progress line; returns the results of all.

    again: where all have one, show them once more; otherwise refuse.
    """
    from elfcli.errors import InputError
    from elfcli.evaluation.evaluate import evaluate, opened, remaining
    from elfcli.ui.progress import progress, say

    folder, settings, texts = evaluation.folder, len(evaluation.settings), len(evaluation.sources.rows)
    with opened(evaluation, overwrite) as done:
        todo = len(remaining(evaluation, done))
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
