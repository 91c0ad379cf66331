"""`elf eval`: sample a task's evaluation split and score it."""

import typer

from elfcli.cli import options as o


@o.several_processes
@o.settings_options
@o.checkpoint_options
def evaluate(
    checkpoint: str | None,
    settings: o.SettingsOptions,
    data: o.DataOption = None,
    num_samples: o.NumSamplesOption = None,
    seed: o.SeedOption = 0,
    seeds: o.SeedsOption = None,
    batch_size: o.BatchSizeOption = 64,
    protocol: o.EvaluationProtocolOption = None,
    json_file: o.JsonOption = None,
    output: o.FolderOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Sample a task's evaluation split with every setting of its preset, and score it by the task's metrics.

    Example: elf eval runs/my --num-samples 1000 --json scores.json
    """
    from elfcli import api
    from elfcli.cli.output import check_json, show_report
    from elfcli.evaluation.run import data_description
    from elfcli.outputs import write_result
    from elfcli.scoring.comparison import seeds_of
    from elfcli.ui.progress import is_first_process
    from elfcli.weights.names import STUDENTS, published_name
    from elfcli.weights.published import published_scores, summary

    wanted = seeds_of(seed, seeds)
    check_json(json_file, overwrite)
    model = api.load(checkpoint, **vars(settings))
    results = api.evaluate(
        model, data=data, num_samples=num_samples, seed=seed, seeds=wanted if seeds else None, batch_size=batch_size,
        protocol=protocol, output=output, overwrite=overwrite,
    )  # fmt: skip
    if not is_first_process():
        return
    show_report([(result["name"], result["scores"]) for result in results])
    typer.echo(f"measured: {data_description(model.config, data)}")
    network = model.config.network.model
    name = published_name(model.loaded.name)
    student = name if name in STUDENTS else None
    for line in summary(published_scores(settings.task or model.config.data.task, network, student)):
        typer.echo(f"published for {network}: {line}")
    write_result(json_file, results, overwrite)
