"""`elf eval`: sample a task's evaluation split and score it."""

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
from elfcli.cli.sample import CheckpointOption


def evaluate(
    checkpoint: CheckpointOption = None,
    task: TaskOption = None,
    model: ModelOption = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Evaluation data; by default the run's own.")
    ] = None,
    num_samples: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many samples to score.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="Seed of the draws.")] = 0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Texts sampled at once.")] = 64,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results here.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for samples and results.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    coordinator: CoordinatorOption = None,
    num_processes: NumProcessesOption = None,
    process_id: ProcessIdOption = None,
    join_timeout: JoinTimeoutOption = None,
) -> None:
    """Sample a task's evaluation split with every setting of its preset, and score it by the task's metrics."""
    from elfcli.parallel.agree import by_first
    from elfcli.parallel.join import join

    join(coordinator, num_processes, process_id, join_timeout)

    import json

    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file, write_whole
    from elfcli.ui.progress import is_first_process, progress, say

    by_first(lambda: check_output_file(json_file, overwrite, "--json"))
    if output is not None:
        by_first(lambda: check_output_file(output / "results.json", overwrite=True))

    from elfcli.evaluation.newest import chosen_checkpoint

    checkpoint = by_first(lambda: chosen_checkpoint(checkpoint, task, model))
    from elfcli.evaluation.evaluate import evaluate as run
    from elfcli.evaluation.examples import rows_to_sample
    from elfcli.evaluation.generate import load_model
    from elfcli.evaluation.ways import settings_of

    loaded = load_model(checkpoint, task=task, model=model, files=config or (), sets=sets or ())
    say(loaded.source.description)
    evaluation = loaded.config.evaluation
    if not evaluation.metrics:
        raise InputError("no metrics to score by: give --task, or --set 'metrics=[\"bleu\"]'")
    settings = settings_of(loaded.config.sampling)
    folder = output or loaded.folder / "eval" / f"step{loaded.step}-seed{seed}"
    if by_first(lambda: (folder / "results.json").exists()) and not overwrite:
        raise InputError(f"{folder} holds results already; give another --output or --seed, or --overwrite")
    conditions, rows = rows_to_sample(loaded, data, num_samples or evaluation.num_samples)
    say(f"{len(rows)} {what_is_sampled(loaded.config, data)}, {len(settings)} setting(s), results in {folder}")
    with progress("eval", len(rows) * len(settings)) as update:
        results = run(
            loaded, settings, conditions, rows, seed=seed, folder=folder, batch_size=batch_size, update=update
        )
    if not is_first_process():
        return
    for setting, result in zip(settings, results, strict=True):
        scores = "  ".join(shown_score(score) for score in result["scores"])
        typer.echo(f"{setting.name:40}  {scores}  ({result['num_samples']} samples, {result['seconds']:.0f} s)")
    typer.echo(f"measured: {what_is_sampled(loaded.config, data)}")
    from elfcli.hub.published import figures_of, summary

    network = loaded.config.network.model
    for line in summary(figures_of(task or loaded.config.data.task, network)):
        typer.echo(f"published for {network}: {line}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(json_file, json.dumps(results, indent=1) + "\n")


def what_is_sampled(config, data: str | None) -> str:
    """Which split and data the scores are from."""
    if not config.data.max_input_length:
        return "free samples"
    where = data or config.data.eval_data_path or config.data.data_path
    return f"examples of the evaluation data {where}" if data else f"validation examples of {where}"


def shown_score(score: dict) -> str:
    """A score with the parts that its metric is published with."""
    parts = [name for name in ("rouge1", "rouge2", "rougeL") if name in score] or [score["metric"]]
    values = [score.get(name, score["value"]) for name in parts]
    if score["value"] is None:
        return f"{score['metric']} - ({score['note']})"
    if "entropy" in score:
        parts, values = [*parts, "entropy"], [*values, score["entropy"]]
    return "  ".join(f"{name} {value:.2f}" for name, value in zip(parts, values, strict=True))
