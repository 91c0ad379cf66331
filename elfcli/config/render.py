"""Writes a configuration as TOML, YAML or JSON, with the layer that set each value."""

import json
from dataclasses import asdict
from typing import Any

from elfcli.config.entries import COMPLETE, Origin
from elfcli.config.resolve import Resolved
from elfcli.config.schema import SECTIONS, Config

_COMPLETE_NOTE = "every value is given below, so no preset applies below this file"


def to_toml(resolved: Resolved | Config, origins: bool = True) -> str:
    """TOML that `load_config` reads back to the equal Config; unset values are comments."""
    config, came_from = _split(resolved, origins)
    lines = [f"{COMPLETE} = true  # {_COMPLETE_NOTE}"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for name, value in getattr(config, section):
            text = f"# {name} is not set" if value is None else f"{name} = {literal(value)}"
            lines.append(text + _comment(came_from, name))
    for item in config.sampling:
        lines += ["", "[[sampling]]" + _comment(came_from, "sampling")]
        lines += [f"{name} = {literal(value)}" for name, value in item]
    return "\n".join(lines) + "\n"


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


def to_yaml(resolved: Resolved | Config, origins: bool = True) -> str:
    """The same as YAML; unset values are `null`."""
    config, came_from = _split(resolved, origins)
    lines = [f"{COMPLETE}: true  # {_COMPLETE_NOTE}"]
    for section in SECTIONS:
        lines.append(f"{section}:")
        lines += [f"  {name}: {literal(value)}{_comment(came_from, name)}" for name, value in getattr(config, section)]
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


def _split(resolved: Resolved | Config, origins: bool) -> tuple[Config, dict[str, Origin] | None]:
    if isinstance(resolved, Config):
        return resolved, None
    return resolved.config, resolved.origins if origins else None


def _comment(origins: dict[str, Origin] | None, name: str) -> str:
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
