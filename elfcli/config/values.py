"""Checks single values against the schema, and describes in words which values a setting accepts."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from pydantic import ValidationError

from elfcli.config.schema import REMOVED_SCHEDULE, RETIRED, SECTION_OF, SECTIONS, Retired, SamplingPreset, Section
from elfcli.errors import did_you_mean


class BadValue(Exception):
    """A value that is not accepted; the message says what was expected and what was found."""


def check_setting(name: str, value: Any) -> Any:
    """Return the value of the setting with this bare name in its final type. Raises BadValue."""
    return _check(_section_of(name), name, [value])


def check_sampling_field(name: str, value: Any) -> Any:
    """Return the value of one field of a sampling setting in its final type. Raises BadValue."""
    if (name, value) == ("time_schedule", "fitted"):
        raise BadValue(REMOVED_SCHEDULE)
    return _check(SamplingPreset, name, [value])


def check_sampling_item(name: str, value: Any) -> Any:
    """Return one item of a list field of a sampling setting in its final type. Raises BadValue."""
    try:
        return check_sampling_field(name, [value])[0]
    except BadValue:
        item = _properties(SamplingPreset)[name]["items"]
        raise BadValue(f"expected {_describe(item)}, got {_show(value)}") from None


def parse_setting(name: str, text: str) -> Any:
    """Return the value of a setting given as text (`--set`, environment): a TOML value, or else the text itself."""
    return _check(_section_of(name), name, [*_readings(text)], shown=parse_toml_value(text))


def _section_of(name: str) -> type[Section]:
    return Retired if name in RETIRED else SECTIONS[SECTION_OF[name]]


def parse_toml_value(text: str) -> Any:
    """Return `text` as a TOML value, or `text` itself if it is not one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _readings(text: str) -> Iterator[Any]:
    """Yield the values that a text may mean, the most likely first; the setting's type decides."""
    word = text.strip().lower()
    if word in ("null", "none", ""):
        yield None
    if word in ("true", "false"):
        yield _WORDS[word]
    yield parse_toml_value(text)
    with suppress(ValueError):
        yield float(text)
    yield text
    if word in _WORDS:
        yield _WORDS[word]
    yield [parse_toml_value(part.strip()) for part in text.split(",")]


def _check(section: type[Section], name: str, readings: list[Any], shown: Any = None) -> Any:
    """Return the first reading that the setting accepts. Raises BadValue, which reports `shown`, if there is none."""
    shown = readings[0] if shown is None else shown
    for value in readings:
        whole = [int(value)] if isinstance(value, float) and value.is_integer() else []
        for candidate in [value, *whole]:
            # JSON in strict mode takes lists for tuples and whole numbers for floats, and no other conversion.
            with suppress(ValidationError, ValueError):
                checked = section.model_validate_json(json.dumps({name: candidate}, default=str), strict=True)
                return getattr(checked, name)
    expected = _describe(_properties(section)[name])
    raise BadValue(f"expected {expected}, got {_show(shown)}{_hint(section, name, shown)}")


def _hint(section: type[Section], name: str, shown: Any) -> str:
    if not isinstance(shown, str):
        return ""
    try:
        _check(section, name, [parse_toml_value(shown)], shown=0)
    except BadValue:
        return did_you_mean(shown, _choices(_properties(section)[name]))
    return " (remove the quotes)"


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except ValueError:
        text = "a number with thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


@cache
def _properties(section: type[Section]) -> dict[str, Any]:
    return section.model_json_schema()["properties"]


def _choices(schema: dict[str, Any]) -> list[str]:
    nested = [choice for option in schema.get("anyOf", []) for choice in _choices(option)]
    return [*schema.get("enum", []), *([schema["const"]] if "const" in schema else []), *nested]


def _describe(schema: dict[str, Any]) -> str:
    """Return in words what a field accepts, e.g. `a whole number (at least 1)`."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"] if option.get("type") != "null")
    if choices := _choices(schema):
        return " or ".join(f"'{choice}'" for choice in choices)
    kind = schema.get("type")
    if kind == "array":
        return f"a list whose items are each {_describe(schema['items'])}"
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(schema)
    return {"boolean": "true or false", "string": "text"}.get(str(kind), str(kind))


def _range(schema: dict[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most",
             "exclusiveMaximum": "less than"}  # fmt: skip
    bounds = [f"{word} {_number(schema[key])}" for key, word in words.items() if key in schema]
    return f" ({', '.join(bounds)})" if bounds else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
