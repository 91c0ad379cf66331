"""`elf eval`: sample a task's evaluation split and score it."""

from pathlib import Path

import typer

from elfcli.cli import options as o
from elfcli.cli.output import check_outputs, show_report, without_draws
from elfcli.evaluation.run import evaluated, what_is_sampled


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
    from elfcli.weights.published import published_scores, summary

    network, student = loaded.config.network.model, published_name(Path(loaded.name.partition("@")[0]).name) in STUDENTS
    for line in summary(published_scores(task or loaded.config.data.task, network, student)):
        typer.echo(f"published for {network}: {line}")
    write_result(json_file, without_draws(results), overwrite)


def load(checkpoint: str | None, **settings):
    """(name, model) of the checkpoint that was given or is chosen; says which it is. settings: as of `load_model`."""
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.ui.progress import say
    from elfcli.weights.newest import chosen_checkpoint

    name = broadcast_from_first(lambda: chosen_checkpoint(checkpoint, settings["task"], settings["model"]))
    from elfcli.sampling.model import load_model

    loaded = load_model(name, **settings)
    say(loaded.source.description)
    return name, loaded
