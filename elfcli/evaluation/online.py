"""Evaluation during training with the EMA weights: samples to read, and scores as `elf eval` computes them."""

from collections.abc import Callable
from typing import TypeVar

from elfcli.config.schema import Config
from elfcli.errors import InputError, first_line
from elfcli.evaluation.evaluate import EvaluationJob, evaluate, open_results, write_rows
from elfcli.parallel.agree import is_shared
from elfcli.runs.checkpoint import RankingMetric
from elfcli.sampling.gaps import evaluation_sources
from elfcli.sampling.generate import Options, sample_rows
from elfcli.sampling.model import LoadedModel, with_weights
from elfcli.sampling.settings import evaluated, for_templates, settings_of
from elfcli.sampling.sources import first_sources
from elfcli.scoring import metric
from elfcli.ui.progress import say

T = TypeVar("T")
FAILED = "eval/failed"
"""Name of the figure that reports a failed evaluation."""
SAMPLES_FOLDER = "samples"


def without_stopping(what: str, compute: Callable[[], T]) -> T | None:
    """Return the value, or None after a warning if it fails in any way: training continues.

    With several processes this holds for errors that all of them raise at the same place. Any other error is raised,
    because the other processes wait for this one.
    """
    try:
        return compute()
    except Exception as error:  # includes running out of memory
        if not is_shared(error):
            raise
        say(f"warning: {what} failed, training continues: {first_line(error)[:300]}")
        return None


def online_evaluation(model: LoadedModel, ema: dict, step: int) -> dict[str, float]:
    """Return {"eval/setting/metric": value} at `step`; write samples and results to RUN/eval. A failure is a figure."""
    config, seed = model.config, model.config.training.seed
    folder = model.folder / "eval" / f"step{step}-seed{seed}"

    def compute() -> list[dict]:
        settings, options = tuple(settings_of(evaluated(config, choose=False))), Options(seed)
        now = with_weights(model, ema, step)
        evaluation = EvaluationJob(now, settings, evaluation_sources(now), config.evaluation.metrics, folder, options)
        with open_results(evaluation, overwrite=True):
            return evaluate(evaluation)

    results = without_stopping(f"the evaluation at step {step}", compute)
    if results is None:
        return {FAILED: 1.0}
    figures = {
        f"eval/{result['name']}/{score['metric']}": score["value"]
        for result in results
        for score in result["scores"]
        if score["value"] is not None
    }
    shown = "  ".join(f"{name.removeprefix('eval/')} {value:.4g}" for name, value in figures.items())
    say(f"step {step}: {shown}")
    return figures


def figure_of(config: Config, figures: dict[str, float]) -> RankingMetric | None:
    """Return what ranks checkpoints, None if `figures` does not have it.

    With online evaluation it is the best setting's score in the task's first metric, otherwise the held-out loss.
    """
    if not config.evaluation.online_eval:
        return RankingMetric("val_loss", figures["val_loss"], False) if "val_loss" in figures else None
    if not config.evaluation.metrics:
        return None
    first = metric(config.evaluation.metrics[0])
    values = [value for name, value in figures.items() if name.startswith("eval/") and name.endswith(f"/{first.name}")]
    larger = first.larger_is_better
    return RankingMetric(first.name, (max if larger else min)(values), larger) if values else None


def shown_samples(model: LoadedModel, ema: dict, step: int) -> list[dict]:
    """Return a few texts, for the first held-out sources or texts with gaps, otherwise for training sources."""
    now, count = with_weights(model, ema, step), model.config.evaluation.num_live_samples
    try:
        sources = evaluation_sources(now, None, count)
    except InputError:
        sources = first_sources(now, count)
    presets = for_templates(model.config.sampling, choose=False) if sources.templates else model.config.sampling
    return sample_rows(now, sources, settings_of(presets)[0], Options(model.config.training.seed))


def show_samples(model: LoadedModel, ema: dict, step: int) -> str | None:
    """Sample a few texts, print them and write them to RUN/samples; return the first. A failure is a warning."""

    def compute() -> str:
        rows = shown_samples(model, ema, step)
        write_rows(model.folder / SAMPLES_FOLDER / f"training-step{step}.jsonl", rows)
        say(f"step {step}, sampled with the EMA weights:")
        for row in rows:
            known = row.get("input", row.get("template"))
            source = "" if known is None else f"{known[:200]}  ->  "
            say(f"  {source}{row['generated'][:200] or '(empty)'}")
        return " ".join(rows[0]["generated"].split()) if rows else ""

    return without_stopping(f"sampling at step {step}", compute)
