"""Settings to use weights with, checked against the weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from elfcli.config.resolve import Resolved, model_names, presets_dir, resolve
from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.models.elf import ElfShape
from elfcli.ui.progress import say
from elfcli.weights.names import PUBLISHED, STUDENTS, published_name
from elfcli.weights.open import open_source
from elfcli.weights.source import Source, with_own_encoder

PRESET_SIZES = ("depth", "hidden_size", "num_heads", "bottleneck_dim")  # set by a model preset


def config_of(source: Source, **settings: Any) -> Config:
    """Return the settings to use the weights with, checked against them. settings: as in `resolved_of`."""
    config = resolved_of(source, **settings).config
    network = config.network.model_dump(exclude={"model", "attn_dropout", "proj_dropout"})
    check_shape(source, network | {"self_cond": config.objective.self_cond_prob > 0})
    return config


def resolved_of(source: Source, *, task: str | None = None, model: str | None = None, **layers: Any) -> Resolved:
    """Return the settings to use the weights with, and their origins. layers: files, sets, flags, style of `resolve`.
    Settings that come with the weights are kept (files, sets and flags override them; `task` only for sampling and
    evaluation). Other weights take the published recipe of their name, or that of task, model and files."""
    files, sets = layers.pop("files", ()), layers.pop("sets", ())
    if source.config_file is not None:
        layers.pop("style", None)  # the weights' own file is ours
        resolved = resolve(model=model, files=[source.config_file, *files], sets=sets, environ={}, **layers)
        config = with_own_encoder(resolved.config, source.folder)
        if task is not None:
            preset = resolve(task=task, files=files, sets=sets, environ={}).config
            config = config.model_copy(update={"sampling": preset.sampling, "evaluation": preset.evaluation})
        return replace(resolved, config=config)
    known = published_name(source.name)
    if known and task is None and not files:
        task, model = PUBLISHED[known][0], model or PUBLISHED[known][1]
        if known in STUDENTS and not any("sampling" in text for text in sets):
            sets = [f"sampling_configs_path={presets_dir() / 'sampling' / f'{STUDENTS[known]}.toml'}", *sets]
    if task is None and not files:
        raise InputError(f"{source.name}: this checkpoint comes without settings; pass --task (owt, de-en, "
                         "xsum) or --config FILE")  # fmt: skip
    resolved = resolve(task=task, model=model, files=files, sets=sets, **layers)
    for line in resolved.notices:
        say(line)
    return resolved


def check_shape(source: Source, wanted: dict) -> None:
    """Raise InputError with both sides if the weights have other dimensions than `wanted`."""
    have = vars(source.shape)
    if wrong := [name for name, value in wanted.items() if have[name] != value]:
        mine = ", ".join(f"{name} {have[name]}" for name in wrong)
        theirs = ", ".join(f"{name} {wanted[name]}" for name in wrong)
        preset = preset_of(source.shape)
        hint = f"pass --model {preset}" if preset else "pass a --model or --set that fits it"
        if set(wrong) <= {"latent_dim", "vocab_size"}:
            hint = "use the encoder and the tokenizer that it was trained with"
        raise InputError(f"{source.name}: the checkpoint has {mine}, but the settings ask for {theirs}: {hint}")


def preset_of(shape: ElfShape) -> str | None:
    """Return the model preset with this shape's depth, width, heads and bottleneck, None if there is none."""
    for model in model_names():
        network = resolve(files=[presets_dir() / "models" / f"{model}.toml"], environ={}).config.network
        if all(getattr(network, name) == getattr(shape, name) for name in PRESET_SIZES):
            return model
    return None


def check_vocabulary(source: Source, tokenizer: str, size: int) -> None:
    """Raise InputError if a tokenizer of `size` tokens does not fit the weights."""
    have = source.shape.vocab_size
    if size != have:
        raise InputError(f"{source.name}: the checkpoint's vocabulary has {have} tokens, but the tokenizer "
                         f"{tokenizer} has {size}: set tokenizer_name to the one it was trained with")  # fmt: skip


def check_latents(source: Source, encoder: str, dim: int) -> None:
    """Raise InputError if an encoder of width `dim` does not fit the weights."""
    have = source.shape.latent_dim
    if dim != have:
        raise InputError(f"{source.name}: the checkpoint takes latents of width {have}, but the encoder {encoder} "
                         f"gives {dim}: set encoder_model_name to the one it was trained with")  # fmt: skip


def load_initial_params(spec: str | Path, shape: ElfShape, step: int | None = None) -> dict:
    """Return the weights (EMA if there is one) of any source, for a network of `shape` to start or learn from."""
    source = open_source(spec, step=step)
    prefix = "num_time_tokens", "num_self_cond_cfg_tokens", "num_model_mode_tokens"
    fields = *PRESET_SIZES, *prefix, "text_position", "self_cond", "latent_dim", "vocab_size"
    check_shape(source, {name: getattr(shape, name) for name in fields})
    return source.params
