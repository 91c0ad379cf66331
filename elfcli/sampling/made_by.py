"""Provenance of scores: the checkpoint, its weights and the sampling setting."""

from pathlib import Path
from typing import Any

from elfcli.config.schema import Config
from elfcli.data.folder import split_names
from elfcli.sampling.candidates import chosen_by
from elfcli.sampling.generate import passes
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import Sources
from elfcli.scoring.samples_file import SampleProvenance


def network_calls(config: Config, setting: SamplingSetting) -> int:
    """Return the network calls for one text with all its candidates: each guidance doubles those of a step, and
    decoding takes one more."""
    use_cfg, use_w = passes(config, setting)
    return setting.candidates * (setting.num_sampling_steps * 2 ** (use_cfg + use_w) + 1)


def made_by(model: LoadedModel, setting: SamplingSetting, seed: int, sources: Sources) -> dict[str, Any]:
    """Return the record that is written with scores.

    chosen_by: what chose between the candidates. ema_horizon: steps that the average spans, 1 / (1 - decay); None if
    the decay is unknown.
    """
    source, decay = model.source, model.config.optimization.ema_decay
    averaged = source.kind in ("run", "exported") and source.ema and decay < 1
    return {
        "checkpoint": model.name,
        "step": model.step,
        "weights": "EMA" if source.ema else "raw",
        "ema_horizon": round(1 / (1 - decay)) if averaged else None,
        "solver": setting.sampling_method,
        "grid": setting.grid,
        "steps": setting.num_sampling_steps,
        "network_calls": network_calls(model.config, setting),
        "gamma": setting.sde_gamma if setting.sampling_method == "sde" else None,
        "w": setting.self_cond_scale,
        "cfg": setting.cfg,
        "candidates": setting.candidates,
        "chosen_by": chosen_by(model.config, setting, sources),
        "seed": seed,
    }


def origin_of(
    model: LoadedModel, setting: SamplingSetting, seed: int, split: str | None, sources: Sources
) -> SampleProvenance:
    """Return the provenance of a samples file."""
    return SampleProvenance(made_by(model, setting, seed, sources), model.config.evaluation.clean_up, split)


def split_of(config: Config, data: str | None) -> str:
    """Return the split that `evaluation_examples` samples from; `free` for models without sources."""
    if config.evaluates_free_texts:
        return "free"
    folder, train = data or config.data.eval_data_path, config.data.data_path
    if folder is None and train is not None and Path(train).is_dir() and "validation" not in split_names(train):
        return "held out of train"
    splits = split_names(folder) if folder is not None and Path(folder).is_dir() else ("validation",)
    return "validation" if "validation" in splits else splits[0]
