"""Evaluation while training: the EMA weights as they are, sampled and scored like `elf eval` does it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from elfcli.config.schema import Config
from elfcli.errors import first_line
from elfcli.evaluation.evaluate import Evaluation, evaluate, opened, sources_of
from elfcli.evaluation.generate import Model, Options
from elfcli.evaluation.ways import settings_of
from elfcli.hub.sources import Source
from elfcli.models.elf import ElfShape
from elfcli.models.encoder import Encoder
from elfcli.parallel.agree import is_shared
from elfcli.parallel.mesh import on_devices
from elfcli.ui.progress import say

FAILED = "eval/failed"
"""Figure of an evaluation that failed."""


def model_in_training(config: Config, shape: ElfShape, encoder: Encoder, tokenizer: Any, run: Path) -> Model:
    """What `online_evaluation` samples from; the weights come with each call."""
    return Model(
        config, shape, {}, encoder, tokenizer, Source("run", str(run), str(run), {}, shape, 0, True, folder=run)
    )


def online_evaluation(model: Model, ema: dict, step: int) -> dict[str, float]:
    """Figures {"eval/setting/metric": value} at `step`; samples and results go to RUN/eval.

    Never stops a run of one process, whatever fails. Of several processes all go on where all failed alike."""
    config, seed = model.config, model.config.training.seed
    model = replace(model, params=on_devices(ema), source=replace(model.source, step=step))
    folder = model.folder / "eval" / f"step{step}-seed{seed}"
    try:
        settings = tuple(settings_of(config.sampling))
        evaluation = Evaluation(model, settings, sources_of(model), config.evaluation.metrics, folder, Options(seed))
        with opened(evaluation, overwrite=True):
            results = evaluate(evaluation)
    except Exception as error:  # out of memory, too
        if not is_shared(error):  # the other processes are still at it
            raise
        say(f"warning: the evaluation at step {step} failed, training goes on: {first_line(error)[:300]}")
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
