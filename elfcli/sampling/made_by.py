"""What scores were made by: the checkpoint, its weights and the way to sample, which may differ between scores."""

from pathlib import Path

from elfcli.config.schema import Config
from elfcli.data.folder import split_names
from elfcli.sampling.generate import passes
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting
from elfcli.scoring.samples_meta import SampleProvenance


def network_calls(config: Config, setting: SamplingSetting) -> int:
    """Passes of the network for one text and all of its candidates: guidance doubles those of a step, and decoding
    takes one more."""
    use_cfg, use_w = passes(config, setting)
    return setting.candidates * (setting.num_sampling_steps * 2 ** (use_cfg + use_w) + 1)


def made_by(model: LoadedModel, setting: SamplingSetting, seed: int) -> dict:
    """EMA horizon: the steps that the average spans, 1 / (1 - decay); None where the decay is not known."""
    source, decay = model.source, model.config.optimization.ema_decay
    known = source.kind in ("run", "exported") and source.ema and decay < 1
    return {
        "checkpoint": model.name,
        "step": model.step,
        "weights": "EMA" if source.ema else "raw",
        "ema_horizon": round(1 / (1 - decay)) if known else None,
        "solver": setting.sampling_method,
        "grid": setting.grid,
        "steps": setting.num_sampling_steps,
        "network_calls": network_calls(model.config, setting),
        "gamma": setting.sde_gamma if setting.sampling_method == "sde" else None,
        "w": setting.self_cond_scale,
        "cfg": setting.cfg,
        "candidates": setting.candidates,
        "seed": seed,
    }


def origin_of(model: LoadedModel, setting: SamplingSetting, seed: int, split: str | None) -> SampleProvenance:
    return SampleProvenance(made_by(model, setting, seed), model.config.evaluation.clean_up, split)


def split_of(config: Config, data: str | None) -> str:
    """The split whose sources are sampled, as `evaluation_examples` takes it; `free` without sources."""
    if not config.data.max_input_length:
        return "free"
    where, own = data or config.data.eval_data_path, config.data.data_path
    if where is None and own is not None and Path(own).is_dir() and "validation" not in split_names(own):
        return "held out of train"
    splits = split_names(where) if where is not None and Path(where).is_dir() else ("validation",)
    return "validation" if "validation" in splits else splits[0]
