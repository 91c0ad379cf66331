"""Writes a configuration as TOML, YAML or JSON, with the layer that set each value."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from elfcli.config.entries import COMPLETE, SettingOrigin
from elfcli.config.resolve import Resolved
from elfcli.config.schema import SECTIONS, Config

BY_HAND = ("--set", "environment", "command line", "config file")
"""How the layers begin that a person writes; the others are defaults, presets, and what a start chooses."""
_COMPLETE_NOTE = "every value is given below, so no preset applies below this file"


def to_toml(resolved: Resolved | Config, origins: bool = True, describe: bool = False) -> str:
    """TOML that `load_config` reads back to the equal Config; unset values are comments.

    describe: a comment above each setting says what it means.
    """
    config, came_from = _split(resolved, origins)
    lines = [f"{COMPLETE} = true  # {_COMPLETE_NOTE}"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for name, value in getattr(config, section):
            lines += _meaning(section, name) if describe else []
            text = f"# {name} is not set" if value is None else f"{name} = {literal(value)}"
            lines.append(text + _comment(came_from, name))
    for item in config.sampling:
        lines += ["", "[[sampling]]" + _comment(came_from, "sampling")]
        lines += [f"{name} = {literal(value)}" for name, value in item]
    return "\n".join(lines) + "\n"


def as_recorded(resolved: Resolved, path: Path) -> Resolved:
    """The settings read from a run's `path` with the layers that `to_toml` wrote there, where it wrote them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    origins = dict(resolved.origins)
    for name, origin in origins.items():
        if origin.layer == "config file" and origin.line is not None:
            _, mark, said = lines[origin.line - 1].rpartition("  # ")
            origins[name] = SettingOrigin(said) if mark else origin
    return replace(resolved, origins=origins)


def by_hand(resolved: Resolved) -> str:
    """Comments for the top of TOML or YAML: the settings that a person chose, and the learning rate that follows."""
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
    """TOML of what the task's preset sets, each setting with what it means, as a file to edit and train with."""
    lines = [f"# {heading}", *(f"{name} = {literal(getattr(part, name))}" for part, name in
             ((resolved.config.data, "task"), (resolved.config.network, "model")))]  # fmt: skip
    for section in SECTIONS:
        part = getattr(resolved.config, section)
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            if resolved.origins[name].layer != "task preset" or name in ("model", "task", "sampling_configs_path"):
                continue
            if f"[{section}]" not in lines:
                lines += ["", f"[{section}]"]
            if value is not None:
                lines += [f"# {field.description}", f"{name} = {literal(value)}"]
    for item in resolved.config.sampling:
        lines += ["", "[[sampling]]", *(f"{name} = {literal(value)}" for name, value in item)]
    return "\n".join(lines) + "\n"


def to_yaml(resolved: Resolved | Config, origins: bool = True, describe: bool = False) -> str:
    """The same as YAML; unset values are `null`."""
    config, came_from = _split(resolved, origins)
    lines = [f"{COMPLETE}: true  # {_COMPLETE_NOTE}"]
    for section in SECTIONS:
        lines.append(f"{section}:")
        for name, value in getattr(config, section):
            lines += [f"  {line}" for line in _meaning(section, name)] if describe else []
            lines.append(f"  {name}: {literal(value)}{_comment(came_from, name)}")
    lines.append(f"sampling:{_comment(came_from, 'sampling')}")
    for item in config.sampling:
        fields = [f"{name}: {literal(value)}" for name, value in item]
        lines += [f"{'  - ' if index == 0 else '    '}{text}" for index, text in enumerate(fields)]
    return "\n".join(lines) + "\n"


def to_json(resolved: Resolved | Config, origins: bool = True) -> str:
    """JSON by section; with origins each setting is {"value", "layer", "file", "line"}, else its value."""
    config, came_from = _split(resolved, origins)
    plain = config.model_dump(mode="json")

    def shown(name: str, value: Any) -> Any:
        return value if came_from is None else {"value": value, **asdict(came_from[name])}

    tree: dict[str, Any] = {
        section: {name: shown(name, value) for name, value in plain[section].items()} for section in SECTIONS
    }
    tree["sampling"] = shown("sampling", plain["sampling"])
    return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _split(resolved: Resolved | Config, origins: bool) -> tuple[Config, dict[str, SettingOrigin] | None]:
    if isinstance(resolved, Config):
        return resolved, None
    return resolved.config, resolved.origins if origins else None


def _meaning(section: str, name: str) -> list[str]:
    return [f"# {SECTIONS[section].model_fields[name].description}"]


def _comment(origins: dict[str, SettingOrigin] | None, name: str) -> str:
    if origins is None:
        return ""
    return "  # " + "".join(char if char.isprintable() else "?" for char in str(origins[name]))


def literal(value: Any) -> str:
    """A value in the notation that TOML and YAML share."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent  # YAML 1.1 takes 1e-05 for text
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(literal(item) for item in value)}]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    def escaped(char: str) -> str:
        if char in '"\\':
            return "\\" + char
        if char.isprintable():
            return char
        return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"

    return f'"{"".join(escaped(char) for char in text)}"'
