"""Resolves the configuration: lays the layers over each other and remembers where each value came from.

Later wins: built-in defaults < task preset < model preset < what the task changes for this model < `--config` files
in order < environment (`ELF_<NAME>`) < `--set key=value` < command-line flags. All problems of all layers are
collected and raised as one ConfigError.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elfcli.config.check import contradictions
from elfcli.config.entries import (
    Entry,
    Origin,
    Problems,
    environment_entries,
    file_entries,
    flag_entries,
    set_entries,
)
from elfcli.config.presets import model_names, pair_path, preset_path, presets_dir, task_names
from elfcli.config.schema import SECTION_OF, SECTIONS, Config, reference_keys_without_meaning
from elfcli.errors import InputError

__all__ = [
    "ConfigError",
    "Origin",
    "Resolved",
    "changed",
    "load_config",
    "model_names",
    "presets_dir",
    "resolve",
    "task_names",
]


class ConfigError(InputError):
    """Everything that is wrong with a configuration; `problems` holds one line each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Resolved:
    """`origins` holds one Origin per setting, by bare name (`sampling` is one name)."""

    config: Config
    origins: dict[str, Origin]
    warnings: tuple[str, ...] = ()


@dataclass
class _Merged:
    """Values and origins after all layers; `rank` is the layer's place, used to compare two settings."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)


def resolve(
    *,
    task: str | None = None,
    model: str | None = None,
    files: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """The configuration of all layers.

    Args:
      task, model: names given by flag; presets are laid at their own layers.
      files: settings files (TOML or YAML), later ones win.
      sets: `key=value` texts; keys are bare or `section.name`.
      flags: bare name -> value; None values are ignored.
      environ: environment to read `ELF_...` from; None: that of the process.

    Raises ConfigError, with every problem found.
    """
    problems = Problems()
    given = {"task": task, "model": model, **(flags or {})}
    file_layers = [file_entries(path, "config file", problems) for path in files]
    above = [
        *(layer.entries for layer in file_layers),
        environment_entries(os.environ if environ is None else environ, problems),
        set_entries(sets, problems),
        flag_entries(given, problems),
    ]
    whole = [index for index, layer in enumerate(file_layers) if layer.complete]
    if whole:
        layers = above[whole[-1] :]
        _refuse_presets_over(str(files[whole[-1]]), layers, problems)
    else:
        layers = [*_preset_layers(above, problems), *above]
    merged = _merge(layers)
    _follow_use_wandb(merged)
    config = _build(merged.values)
    warnings = [*_warnings(merged), *_report_contradictions(config, merged, bool(whole), problems)]
    if problems.lines:
        raise ConfigError(problems.lines)
    origins = {name: _origin(merged, name) for name in [*SECTION_OF, "sampling"]}
    return Resolved(config, origins, tuple(warnings))


def changed(resolved: Resolved, section: str, layer: str | None, **values: Any) -> Resolved:
    """The settings with some of one section's values replaced; `layer` is their new origin, None keeps the old."""
    part = getattr(resolved.config, section).model_copy(update=values)
    origins = resolved.origins | ({name: Origin(layer) for name in values} if layer else {})
    return Resolved(resolved.config.model_copy(update={section: part}), origins, resolved.warnings)


def load_config(path: str | Path) -> Config:
    """The configuration of one file. The `config.toml` of a run gives exactly what the run used.

    The environment is not read. Raises ConfigError.
    """
    return resolve(files=[path], environ={}).config


def _refuse_presets_over(path: str, layers: list[list[Entry]], problems: Problems) -> None:
    """Reports a task or model chosen above the complete file `path`, the first of `layers`."""
    for kind in ("task", "model"):
        inside, outside = _last(layers[:1], kind), _last(layers[1:], kind)
        if outside and outside.value != (inside.value if inside else None):
            problems.add(
                f"{outside.origin.place()}: {kind} '{outside.value}' would change nothing over {path}, which holds "
                f"every value (`complete = true`): leave out one of the two",
                names=[kind],
            )


def _preset_layers(above: list[list[Entry]], problems: Problems) -> list[list[Entry]]:
    """Entries of the task preset, of the model preset that the layers above choose, and of the pair's own file."""
    task = _last(above, "task")
    task_layer = _preset_entries("task", task, problems)
    model = _last([task_layer, *above], "model")
    layers = [task_layer, _preset_entries("model", model, problems)]
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
    found = [entry for entries in layers for entry in entries if entry.name == name]
    return found[-1] if found else None


def _merge(layers: list[list[Entry]]) -> _Merged:
    merged = _Merged()
    for rank, entries in enumerate(layers):
        for entry in entries:
            merged.values[entry.name] = entry.value
            merged.origins[entry.name] = entry.origin
            merged.ranks[entry.name] = rank
    return merged


def _follow_use_wandb(merged: _Merged) -> None:
    """The reference's `use_wandb: true` chooses the tracker, unless `tracker` is set in the same or a later layer."""
    if merged.values.get("use_wandb") and merged.ranks["use_wandb"] > merged.ranks.get("tracker", -1):
        merged.values["tracker"] = "wandb"
        merged.origins["tracker"] = merged.origins["use_wandb"]


def _build(values: dict[str, Any]) -> Config:
    sections: dict[str, Any] = {
        name: section(**{leaf: values[leaf] for leaf in section.model_fields if leaf in values})
        for name, section in SECTIONS.items()
    }
    if "sampling" in values:
        sections["sampling"] = values["sampling"]
    return Config(**sections)


def _report_contradictions(config: Config, merged: _Merged, complete: bool, problems: Problems) -> list[str]:
    """Adds contradictions to `problems`; those that a warning is enough for are returned."""
    warnings = []
    for names, message, mild in contradictions(config):
        if not problems.names.isdisjoint(names):
            continue
        latest = max(names, key=lambda name: merged.ranks.get(name, -1))
        line = f"{_origin(merged, latest).place()}: {message}"
        if mild and (complete or _origin(merged, names[0]).layer.endswith("preset")):
            warnings.append(line)
        else:
            problems.add(line)
    return warnings


def _origin(merged: _Merged, name: str) -> Origin:
    return merged.origins.get(name, Origin("default"))


def _warnings(merged: _Merged):
    for name, reason in reference_keys_without_meaning().items():
        if merged.values.get(name):
            yield f"{merged.origins[name].place()}: {name} changes nothing here: {reason}"
