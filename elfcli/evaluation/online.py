"""Online evaluation: samples and scores the current EMA weights during training, as `elf eval` would."""

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
    """The model that `online_evaluation` samples from, without weights: each call brings its own."""
    source = Source("run", str(run), str(run), {}, shape, 0, True, folder=run)
    return Model(config, shape, {}, encoder, tokenizer, source)


def online_evaluation(model: Model, ema: dict, step: int) -> dict[str, float]:
    """Figures {"eval/setting/metric": value} at `step`; samples and results go to RUN/eval.

    A failure of any kind is reported, and training continues. With several processes this holds for errors that all
    of them raise at the same place; another one is raised here, since the others wait for this process.
    """
    config, seed = model.config, model.config.training.seed
    folder = model.folder / "eval" / f"step{step}-seed{seed}"
    try:
        model = replace(model, params=on_devices(ema), source=replace(model.source, step=step))
        settings = tuple(settings_of(config.sampling))
        evaluation = Evaluation(model, settings, sources_of(model), config.evaluation.metrics, folder, Options(seed))
        with opened(evaluation, overwrite=True):
            results = evaluate(evaluation)
    except Exception as error:  # out of memory, too
        if not is_shared(error):  # the other processes do not know of it, and wait
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
