"""Resolves the configuration: merges the layers and records where each value came from.

Later layers win: built-in defaults (the reference's if a reference file is read) < task preset < preset of the
encoder's family < model preset < the task's changes for this model < `--config` files in order < environment
(`ELF_<NAME>`) < `--set key=value` < command-line flags. All problems of all layers are collected and raised as one
ConfigError.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from elfcli.config.check import contradictions
from elfcli.config.entries import (
    Entry,
    FileLayer,
    Problems,
    SettingOrigin,
    environment_entries,
    file_entries,
    flag_entries,
    set_entries,
)
from elfcli.config.presets import encoder_path, model_names, pair_path, preset_path, presets_dir, task_names  # noqa: F401
from elfcli.config.reference import CONFIG_STYLES, DEFAULT_LAYER, DEFAULTS, PER_DEVICE, how_it_was_read, metrics_of
from elfcli.config.schema import FORMER_DEFAULTS, SECTION_OF, SECTIONS, WITHOUT_EFFECT, Config
from elfcli.errors import InputError, did_you_mean


class ConfigError(InputError):
    """All problems of a configuration; `problems` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Resolved:
    """A configuration and the origin of each setting, by bare name (`sampling` is one name).

    notices: lines about how files were read.
    """

    config: Config
    origins: dict[str, SettingOrigin]
    warnings: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class _Setting(NamedTuple):
    """A value after all layers. rank: index of the layer that set it; the highest wins."""

    value: Any = None
    origin: SettingOrigin = SettingOrigin("default")
    rank: int = -1


_UNSET = _Setting()
ALTERNATIVES = (
    ("steps", "minutes"), ("minutes", "steps"), ("steps", "epochs"), ("minutes", "epochs"), ("lr", "blr"),
    ("global_batch_size", "batch_size"), ("warmup_steps", "warmup_epochs"), ("save_every_steps", "save_every_epochs"),
)  # fmt: skip
"""Pairs (name, other) of settings for the same thing; `other` in a later layer overrides `name`."""
_Merged = dict[str, _Setting]


def resolve(
    *,
    files: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    style: str | None = None,
    **presets: str | None,
) -> Resolved:
    """Return the configuration of all layers. Raises ConfigError with every problem found.

    Args:
      files: settings files (TOML or YAML); later ones win.
      sets: `key=value` texts; keys are bare or `section.name`.
      flags: bare name -> value; None values are ignored.
      environ: environment to read `ELF_...` from; None: that of the process.
      style: `reference`: files are read as reference files, `elf`: as ours; None: flat YAML without a task as a
        reference file.
      presets: the names `task` and `model` from flags; their presets are layers below all others.
    """
    problems = Problems()
    if style not in (None, *CONFIG_STYLES):
        near = did_you_mean(style, CONFIG_STYLES)
        problems.add(f"--config-style {style}: expected {' or '.join(CONFIG_STYLES)}{near}")
    file_layers = [file_entries(path, "config file", problems) for path in files]
    above = [
        *(layer.entries for layer in file_layers),
        environment_entries(os.environ if environ is None else environ, problems),
        set_entries(sets, problems),
        flag_entries({**presets, **(flags or {})}, problems),
    ]
    complete = [index for index, layer in enumerate(file_layers) if layer.complete]
    theirs: list[int] = []
    if complete:
        layers = above[complete[-1] :]
        _refuse_presets_over(str(files[complete[-1]]), layers, problems)
    else:
        theirs = _of_the_reference(file_layers, style, _last(above, "task"))
        defaults = [Entry(name, value, SettingOrigin(DEFAULT_LAYER)) for name, value in DEFAULTS.items() if theirs]
        layers = [defaults, *_preset_layers(above, problems, encoders=not theirs), *above]
    first = len(layers) - len(above)
    merged = _merge(layers, {0, *(first + index for index in theirs)} if theirs else set())
    config = _build(merged)
    warnings = [*_warnings(merged), *_report_contradictions(config, merged, bool(complete), problems)]
    if problems.lines:
        raise ConfigError(problems.lines)
    origins = {name: merged.get(name, _UNSET).origin for name in [*SECTION_OF, "sampling"]}
    notices = [*(how_it_was_read(files[index]) for index in theirs), *problems.notices]
    return Resolved(config, origins, tuple(warnings), tuple(notices))


def _merge(layers: list[list[Entry]], of_the_reference: set[int]) -> _Merged:
    """Merge the layers, later ones over earlier ones. of_the_reference: indices of the reference's layers."""
    merged = {
        entry.name: _Setting(entry.value, entry.origin, rank)
        for rank, entries in enumerate(layers)
        for entry in entries
    }
    use_wandb = merged.get("use_wandb", _UNSET)
    if use_wandb.value and use_wandb.rank > merged.get("tracker", _UNSET).rank:
        merged["tracker"] = use_wandb._replace(value="wandb")  # the reference's name for it
    _follow_the_latest(merged, of_the_reference)
    if of_the_reference:
        _count_as_the_reference(merged, of_the_reference)
    return merged


def changed(resolved: Resolved, section: str, layer: str | None, **values: Any) -> Resolved:
    """Return the settings with new values in one section; `layer` is their new origin, None keeps the old one."""
    part = getattr(resolved.config, section).model_copy(update=values)
    origins = resolved.origins | ({name: SettingOrigin(layer) for name in values} if layer else {})
    return replace(resolved, config=resolved.config.model_copy(update={section: part}), origins=origins)


def with_devices(resolved: Resolved, devices: int) -> Resolved:
    """Return the settings for a number of devices: a reference file's batch_size counts per device.

    Raises ConfigError if the total batch size contradicts other settings.
    """
    origin, each = resolved.origins["batch_size"], resolved.config.training.batch_size
    if origin.layer != PER_DEVICE:
        return resolved
    layer = f"{each} per device ({origin.place()}) on {devices}"
    return check_again(changed(resolved, "training", layer, batch_size=each * devices))


def check_again(resolved: Resolved) -> Resolved:
    """Return the settings. Raises ConfigError if they contradict values chosen after `resolve`."""
    problems = []
    for names, message, mild in contradictions(resolved.config):
        if not mild:
            places = [resolved.origins[name].place() for name in names if resolved.origins[name].layer != "default"]
            problems.append(f"{' and '.join(dict.fromkeys(places))}: {message}")
    if problems:
        raise ConfigError(problems)
    return resolved


def load_config(path: str | Path) -> Config:
    """Return the configuration of one file, e.g. the exact settings of a run from its `config.toml`.

    Does not read the environment. Raises ConfigError.
    """
    return resolve(files=[path], environ={}).config


def resolve_run(path: str | Path, sets: Sequence[str] = ()) -> Resolved:
    """Return the settings to resume a run with: its config.toml and, above it, `sets`.

    Does not read the environment. Raises ConfigError if the run was trained in a way that this version does not
    support.
    """
    entries = file_entries(path, "config file", Problems()).entries
    if any(entry.name == "branching" and entry.value == "device" for entry in entries):
        raise ConfigError([f"{path}: this run was trained with branching=device, which this version does not support: "
                           "resume it with elfcli 0.1.0, or start a new run"])  # fmt: skip
    resolved = resolve(files=[path], sets=sets, environ={})
    for name, value in FORMER_DEFAULTS.items():
        if resolved.origins[name].layer == "default":
            resolved = changed(resolved, SECTION_OF[name], "earlier version", **{name: value})
    return resolved


def _refuse_presets_over(path: str, layers: list[list[Entry]], problems: Problems) -> None:
    """Report a task or model chosen above the complete file `path`, which is the first of `layers`."""
    for kind in ("task", "model"):
        inside, outside = _last(layers[:1], kind), _last(layers[1:], kind)
        if outside and outside.value != (inside.value if inside else None):
            line = (
                f"{outside.origin.place()}: {kind} '{outside.value}' has no effect on {path}, which holds every "
                f"value (`complete = true`): remove one of the two"
            )
            problems.add(line, names=[kind])


def _preset_layers(above: list[list[Entry]], problems: Problems, encoders: bool) -> list[list[Entry]]:
    """Return the entries of the chosen task preset, of the encoder's if wanted, of the chosen model preset, and of the
    file for this pair of task and model."""
    task = _last(above, "task")
    task_layer = _preset_entries("task", task, problems)
    model = _last([task_layer, *above], "model")
    encoder = _last([task_layer, *above], "encoder_model_name") if encoders else None
    family = encoder_path(encoder.value) if encoder else None
    of_encoder = file_entries(family, "encoder preset", problems).entries if family else []
    layers = [task_layer, of_encoder, _preset_entries("model", model, problems)]
    pair = pair_path(task.value, model.value) if task and model and task.value and model.value else None
    return [*layers, file_entries(pair, "task preset", problems).entries] if pair else layers


def _preset_entries(kind: str, choice: Entry | None, problems: Problems) -> list[Entry]:
    if choice is None or choice.value is None:
        return []
    try:
        path = preset_path(kind, choice.value)
    except InputError as error:
        problems.add(f"{choice.origin.place()}: {error}", names=[kind])
        return []
    return file_entries(path, f"{kind} preset", problems).entries


def _last(layers: list[list[Entry]], name: str) -> Entry | None:
    entries = [entry for layer in layers for entry in layer if entry.name == name]
    return entries[-1] if entries else None


def _follow_the_latest(merged: _Merged, of_the_reference: set[int]) -> None:
    """Drop settings that a later layer replaces by their alternative.

    Both stay if one layer sets both, as a run's config.toml does. The reference's defaults stay if a reference file
    (by its rank in `of_the_reference`) sets the alternative.
    """
    for name, other in ALTERNATIVES:
        ours, later = merged.get(name, _UNSET), merged.get(other, _UNSET)
        stays = ours.origin.layer == DEFAULT_LAYER and later.rank in of_the_reference
        if later.value is not None and later.rank > ours.rank and not stays:
            merged.pop(name, None)


def _of_the_reference(layers: list[FileLayer], style: str | None, task: Entry | None) -> list[int]:
    """Return the indices of the files to read as reference files; none of them is complete."""
    if style == "elf" or (style is None and task and task.value is not None):
        return []
    return [index for index, layer in enumerate(layers) if style == "reference" or layer.flat]


def _count_as_the_reference(merged: _Merged, ranks: set[int]) -> None:
    """Convert what the layers in `ranks` set in the reference's units: batch per device, warm-up in micro-batches."""
    batch, warmup = merged.get("batch_size", _UNSET), merged.get("warmup_steps", _UNSET)
    if batch.rank in ranks and merged.get("global_batch_size", _UNSET).value is None:
        merged["batch_size"] = batch._replace(origin=replace(batch.origin, layer=PER_DEVICE))
    accumulate = merged.get("grad_accum_steps", _UNSET).value or 1
    if warmup.rank in ranks and warmup.value > 0 and accumulate > 1:
        origin = replace(warmup.origin, layer=f"{warmup.value} micro-batches, {warmup.origin.layer}")
        merged["warmup_steps"] = warmup._replace(value=warmup.value // accumulate, origin=origin)
    if "metrics" not in merged:
        sources = [merged.get(name, _UNSET).value for name in ("max_input_length", "eval_data_path")]
        merged["metrics"] = _Setting(metrics_of(*sources), SettingOrigin(DEFAULT_LAYER))


def _build(merged: _Merged) -> Config:
    sections: dict[str, Any] = {
        name: section(**{leaf: merged[leaf].value for leaf in section.model_fields if leaf in merged})
        for name, section in SECTIONS.items()
    }
    if "sampling" in merged:
        sections["sampling"] = merged["sampling"].value
    return Config(**sections)


def _report_contradictions(config: Config, merged: _Merged, complete: bool, problems: Problems) -> list[str]:
    """Add contradictions to `problems`, and return those for which a warning is enough.

    `check_again` checks those that depend on values chosen later, from the data or the number of devices.
    """
    warnings = []
    uses_recipe = config.data.data_path is not None and config.data.task is None
    for names, message, mild in contradictions(config):
        if not problems.names.isdisjoint(names):
            continue
        settings = [merged.get(name, _UNSET) for name in names]
        undecided = uses_recipe and not mild and _UNSET in settings
        if undecided or any(setting.origin.layer == PER_DEVICE for setting in settings):
            continue
        line = f"{max(settings, key=lambda setting: setting.rank).origin.place()}: {message}"
        if mild and (complete or settings[0].origin.layer.endswith(("preset", DEFAULT_LAYER))):
            warnings.append(line)
        else:
            problems.add(line)
    return warnings


def _warnings(merged: _Merged) -> Iterator[str]:
    for name, (harmless, reason) in WITHOUT_EFFECT.items():
        setting = merged.get(name, _UNSET)
        if setting.value not in harmless:
            yield f"{setting.origin.place()}: {reason}"
