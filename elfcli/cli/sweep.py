"""`elf sweep`: which way of sampling a checkpoint is the best."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from elfcli.cli.evaluate import shown_score, what_is_sampled
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
from elfcli.cli.sample import CHECKPOINT_HELP

METRICS, SAMPLERS, SCHEDULES = ("bleu", "rouge", "ppl"), ("ode", "sde"), ("logit_normal", "uniform")


def sweep(
    checkpoint: Annotated[str | None, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP)] = None,
    steps: Annotated[str | None, typer.Option(metavar="N,..", help="Network steps, e.g. 16,32,64.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="ode,sde", help="Solvers.")] = None,
    gamma: Annotated[str | None, typer.Option(metavar="G,..", help="Noise put back (SDE).")] = None,
    cfg: Annotated[str | None, typer.Option(metavar="C,..", help="Guidance of the condition; 1: off.")] = None,
    w: Annotated[
        str | None, typer.Option("--w", "--sc-cfg", metavar="W,..", help="Self-conditioning guidance.")
    ] = None,
    time_schedule: Annotated[str | None, typer.Option(metavar="logit_normal,uniform", help="Time grids.")] = None,
    configs: Annotated[Path | None, typer.Option(metavar="FILE", help="A list of sampling settings instead.")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="bleu,rouge,ppl", help="Scores; the first ranks. The task's by default.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Evaluation data; the run's own by default.")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option("--num-samples", "-n", metavar="N", min=1, help="Texts per setting.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="Seed of the draws.")] = 0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Texts sampled at once.")] = 64,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Results, best first.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for samples and results.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over, whatever is there.")] = False,
    task: TaskOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    coordinator: CoordinatorOption = None,
    num_processes: NumProcessesOption = None,
    process_id: ProcessIdOption = None,
    join_timeout: JoinTimeoutOption = None,
) -> None:
    """Sample and score every combination of sampling settings, best first; a stopped sweep goes on.

    Without lists, the settings of the task's preset (or of --configs) are swept.
    """
    from elfcli.parallel.agree import by_first
    from elfcli.parallel.join import join

    join(coordinator, num_processes, process_id, join_timeout)

    import json

    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file, write_whole

    wanted = {
        "steps": listed("--steps", steps, whole),
        "sampler": listed("--sampler", sampler, one_of(SAMPLERS)),
        "gamma": listed("--gamma", gamma, not_negative),
        "cfg": listed("--cfg", cfg, finite),
        "w": listed("--w", w, finite),
        "time_schedule": listed("--time-schedule", time_schedule, one_of(SCHEDULES)),
    }
    if configs is not None:
        if any(values != [None] for values in wanted.values()):
            raise InputError("--configs and lists of values (--steps, --cfg, ...) exclude each other")
        sets = [*(sets or ()), f"sampling_configs_path={configs}"]
    chosen = listed("--metrics", metrics, one_of(METRICS))
    by_first(lambda: check_output_file(json_file, overwrite, "--json"))
    if output is not None:
        by_first(lambda: check_output_file(output / "results.jsonl", overwrite=True))

    from elfcli.evaluation.newest import chosen_checkpoint

    checkpoint = by_first(lambda: chosen_checkpoint(checkpoint, task, model))
    from elfcli.evaluation.examples import rows_to_sample
    from elfcli.evaluation.generate import load_model
    from elfcli.evaluation.sweep import Sweep
    from elfcli.evaluation.ways import combinations, distinct, settings_of
    from elfcli.ui.progress import is_first_process, say

    loaded = load_model(checkpoint, task=task, model=model, files=config or (), sets=sets or ())
    say(loaded.source.description)
    presets, evaluation = loaded.config.sampling, loaded.config.evaluation
    settings = distinct(settings_of(presets)) if configs is not None else combinations(presets, wanted)
    scores = evaluation.metrics if chosen == [None] else tuple(chosen)
    if not scores:
        raise InputError("no metrics to score by: give --metrics, or --task")
    conditions, rows = rows_to_sample(loaded, data, num_samples or evaluation.num_samples)
    folder = output or loaded.folder / "sweep" / f"step{loaded.step}-seed{seed}"
    plan = Sweep(loaded, tuple(settings), conditions, rows, scores, folder, seed, batch_size)
    results = run(plan, overwrite, what_is_sampled(loaded.config, data))
    if not is_first_process():
        return
    show(results, checkpoint, folder)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(json_file, json.dumps(results, indent=1) + "\n")


def run(plan, overwrite: bool, sampled: str) -> list[dict]:
    """Checks what can be checked before sampling, says what will be done, does it; results best first."""
    from elfcli.evaluation import sweep as sweeping
    from elfcli.evaluation.evaluate import check_metrics
    from elfcli.outputs import check_output_file
    from elfcli.parallel.agree import by_first, everyone
    from elfcli.runs.lock import locked
    from elfcli.ui.progress import progress, say

    by_first(lambda: check_output_file(plan.folder / sweeping.RESULTS_FILE, overwrite=True))
    by_first(lambda: sweeping.check_folder(plan.folder))
    everyone(lambda: check_metrics(plan.metrics, plan.rows, plan.model.config))
    with locked(plan.folder):
        done = by_first(lambda: [] if overwrite else sweeping.finished(plan))
        todo, texts = len(sweeping.left(plan, done)), len(plan.rows)
        say(
            f"{len(plan.settings)} settings of {texts} {sampled}, {len(plan.settings) - todo} of them done already, "
            f"results in {plan.folder}"
        )
        with progress("sweep", todo * texts) as update:
            return sweeping.best_first(sweeping.run_sweep(plan, done, update))


def listed(option: str, text: str | None, parse: Callable[[str], Any]) -> list:
    """The values of a comma-separated list, doubles left out; [None] where the option is not given.

    InputError names the option and the value that `parse` refuses with a ValueError.
    """
    from elfcli.errors import InputError

    if text is None:
        return [None]
    values = []
    for word in text.split(","):
        try:
            values.append(parse(word.strip()))
        except ValueError as error:
            raise InputError(f"{option} {text}: '{word.strip()}': {error}") from None
    return list(dict.fromkeys(values))


MOST_STEPS = 1_000_000


def whole(word: str) -> int:
    if not word.isascii() or not word.isdigit() or not 1 <= len(word) <= 7 or not 1 <= int(word) <= MOST_STEPS:
        raise ValueError(f"expected whole numbers from 1 to {MOST_STEPS:,}, with commas between")
    return int(word)


def finite(word: str) -> float:
    from math import isfinite

    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ValueError("expected finite numbers, with commas between")
    return value


def not_negative(word: str) -> float:
    value = finite(word)
    if value < 0:
        raise ValueError("expected 0 or more")
    return value


def one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    from elfcli.errors import did_you_mean

    def parse(word: str) -> str:
        if word not in known:
            raise ValueError(f"expected some of {', '.join(known)}{did_you_mean(word, known)}")
        return word

    return parse


def show(results: list[dict], checkpoint: str, folder: Path) -> None:
    """A line per setting, best first and marked, and how to sample with the best."""
    from elfcli.evaluation.sweep import LOWER_IS_BETTER

    width = max(len(result["name"]) for result in results)
    best, ranks = results[0], results[0]["scores"][0]["metric"]
    for result in results:
        mark = "*" if result is best and best["scores"][0]["value"] is not None else " "
        scores = "  ".join(shown_score(score) for score in result["scores"])
        typer.echo(f"{mark} {result['name']:{width}}  {scores}  ({result['seconds']:.0f} s)")
    direction = "lower" if ranks in LOWER_IS_BETTER else "higher"
    typer.echo(f"ranked by {ranks}, {direction} is better; samples and {len(results)} results in {folder}")
    setting = best["setting"]
    options = ["sampler", "steps", *(["gamma"] if setting["sampler"] == "sde" else []), "cfg", "w", "time_schedule"]
    names = {"w": "sc-cfg", "time_schedule": "time-schedule"}
    given = " ".join(f"--{names.get(name, name)} {setting[name]}" for name in options)
    typer.echo(f"best: elf sample --checkpoint {checkpoint} {given}")
