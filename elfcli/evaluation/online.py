"""Evaluation while training: the EMA weights as they are, sampled and scored like `elf eval` does it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.errors import ElfError
from elfcli.evaluation.evaluate import evaluate
from elfcli.evaluation.examples import rows_to_sample
from elfcli.evaluation.generate import Model
from elfcli.evaluation.ways import settings_of
from elfcli.hub.sources import Source
from elfcli.models.encoder import Encoder
from elfcli.parallel.agree import everyone, is_shared
from elfcli.parallel.mesh import on_devices
from elfcli.ui.progress import say


def online_evaluation(
    config: Config, tokenizer, encoder: Encoder, shape, params, step: int, folder: Path
) -> dict[str, float]:
    """Figures {"eval/setting/metric": value} at `step`; samples and results go to RUN/eval. Never stops the run."""
    params, encoder_params = on_devices(params), on_devices(encoder.params)
    source = Source("run", str(folder), f"{folder} at step {step}", params, shape, step, ema=True, folder=folder)
    encoder = replace(encoder, params=encoder_params)
    model = Model(config, shape, params, encoder, tokenizer, source)
    seed = config.training.seed
    try:
        conditions, rows = everyone(partial(rows_to_sample, model, None, config.evaluation.num_samples))
        where = folder / "eval" / f"step{step}-seed{seed}"
        results = evaluate(model, settings_of(config.sampling), conditions, rows, seed=seed, folder=where)
    except ElfError as error:
        if not is_shared(error):  # the other processes are still at it
            raise
        say(f"warning: the evaluation at step {step} failed, training goes on: {error}")
        return {}
    figures = {}
    for setting, result in zip(settings_of(config.sampling), results, strict=True):
        for score in result["scores"]:
            if score["value"] is not None:
                figures[f"eval/{setting.name}/{score['metric']}"] = score["value"]
    say(f"step {step}: " + "  ".join(f"{name.removeprefix('eval/')} {value:.4g}" for name, value in figures.items()))
    return figures
