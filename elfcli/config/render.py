"""Writes a configuration as TOML or JSON, and records in TOML comments which layer set each value."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from elfcli.config.entries import COMPLETE, SettingOrigin
from elfcli.config.resolve import Resolved
from elfcli.config.schema import SECTIONS, Config

BY_HAND = ("--set", "environment", "command line", "config file")
"""Prefixes of the layers that a user writes; the others are defaults, presets and choices made at the start."""


def to_toml(resolved: Resolved | Config, origins: bool = True, describe: bool = False) -> str:
    """Return TOML that `load_config` reads back as an equal Config; unset values are comments.

    describe: put each setting's description in a comment above it.
    """
    config = resolved if isinstance(resolved, Config) else resolved.config
    came_from = resolved.origins if origins and isinstance(resolved, Resolved) else None
    lines = [f"{COMPLETE} = true  # every value is given below, so no preset applies below this file"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for name, value in getattr(config, section):
            lines += [f"# {SECTIONS[section].model_fields[name].description}"] if describe else []
            lines.append(_assignment(name, value) + _comment(came_from, name))
    for item in config.sampling:
        lines += ["", "[[sampling]]" + _comment(came_from, "sampling")]
        lines += [_assignment(name, value) for name, value in item]
    return "\n".join(lines) + "\n"


def _assignment(name: str, value: Any) -> str:
    return f"# {name} is not set" if value is None else f"{name} = {literal(value)}"


def as_recorded(resolved: Resolved, path: Path) -> Resolved:
    """Return the settings of a run's config.toml at `path` with the origins that `to_toml` recorded there."""
    lines = path.read_text(encoding="utf-8").splitlines()
    origins = dict(resolved.origins)
    for name, origin in origins.items():
        if origin.layer == "config file" and origin.line is not None:
            _, mark, recorded = lines[origin.line - 1].rpartition("  # ")
            origins[name] = SettingOrigin(recorded) if mark else origin
    return replace(resolved, origins=origins)


def by_hand(resolved: Resolved) -> str:
    """Return comments for the top of a TOML file: the settings that the user chose, and the learning rate."""
    config = resolved.config
    values = {name: value for section in SECTIONS for name, value in getattr(config, section)}
    values["sampling"] = f"{len(config.sampling)} given below"
    chosen = [name for name, origin in resolved.origins.items() if origin.layer.startswith(BY_HAND)]
    lines = ["set by hand:" if chosen else "set by hand: nothing"]
    for name in chosen:
        value = values[name] if name == "sampling" or values[name] is None else literal(values[name])
        lines.append(f"  {name} = {value}{_comment(resolved.origins, name)}")
    part = config.optimization
    follows = f"blr {part.blr:g} * {config.global_batch} examples * {part.grad_accum_steps} / 256"
    how = "lr" if part.lr is not None else follows
    lines.append(f"learning rate: peak {config.peak_lr:g} ({how}), {part.lr_schedule} after the warm-up")
    return "".join(f"# {line}\n" for line in lines) + "\n"


def to_edit(resolved: Resolved, heading: str) -> str:
    """Return TOML to edit and train with: the task preset's settings, each below its description."""
    config = resolved.config
    lines = [f"# {heading}", f"task = {literal(config.data.task)}", f"model = {literal(config.network.model)}"]
    for section, settings in SECTIONS.items():
        for name, field in settings.model_fields.items():
            value = getattr(getattr(config, section), name)
            if resolved.origins[name].layer != "task preset" or name in ("model", "task", "sampling_configs_path"):
                continue
            if f"[{section}]" not in lines:
                lines += ["", f"[{section}]"]
            if value is not None:
                lines += [f"# {field.description}", f"{name} = {literal(value)}"]
    for item in config.sampling:
        lines += ["", "[[sampling]]", *(_assignment(name, value) for name, value in item)]
    return "\n".join(lines) + "\n"


def to_json(resolved: Resolved | Config) -> str:
    """Return the values as JSON by section."""
    config = resolved if isinstance(resolved, Config) else resolved.config
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _comment(origins: dict[str, SettingOrigin] | None, name: str) -> str:
    if origins is None:
        return ""
    return "  # " + "".join(char if char.isprintable() else "?" for char in str(origins[name]))


def literal(value: Any) -> str:
    """Return a value in the notation that TOML and YAML share; None is `null`, which TOML lacks."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent  # YAML 1.1 reads 1e-05 as text
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(literal(item) for item in value)}]"
    return f'"{"".join(map(_escaped, str(value)))}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
