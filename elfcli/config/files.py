"""Reads settings files (TOML or YAML) and records the line of every key for error messages.

Values are plain Python (dict, list, str, int, float, bool, None). A line is looked up by the path of its key from the
top of the file, for example ("optimization", "blr") or ("sampling", 0, "cfgs").
"""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from elfcli.errors import InputError, near_file

MAX_BYTES = 256 * 1024

KeyPath = tuple[str | int, ...]


class FileError(InputError):
    """A file that cannot be read as settings; the message starts with `file:line:`."""


@dataclass(frozen=True)
class SettingsFile:
    """A settings file. content: the top-level mapping, or the list of a file that holds sampling settings only."""

    path: Path
    content: dict[str, Any] | list[Any]
    lines: dict[KeyPath, int]

    def line_of(self, *path: str | int) -> int | None:
        """Return the line (from 1) of the key at `path`, or of the nearest key that encloses it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read_settings_file(path: str | Path) -> SettingsFile:
    """Read a .toml, .yaml or .yml file. Raises FileError if it is missing, too large or malformed."""
    path = Path(path)
    reader = {".toml": _read_toml, ".yaml": _read_yaml, ".yml": _read_yaml}.get(path.suffix.lower())
    if reader is None:
        raise FileError(f"{path}: settings files end in .toml, .yaml or .yml")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileError(f"{path}: no such file{near_file(path)}") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise FileError(f"{path}: larger than {MAX_BYTES // 1024} KiB, so it is probably not a settings file")
    try:
        return SettingsFile(path, *reader(path, raw.decode("utf-8-sig").replace("\r\n", "\n")))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileError(f"{path}:{line}: not UTF-8 text") from None
    except RecursionError:
        raise FileError(f"{path}: nested too deeply") from None


def _read_toml(path: Path, text: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    if deep := _DEEP_KEY.search(text):  # tomllib's time grows with the square of a key's parts
        raise FileError(f"{path}:{_line_at(text, deep.start())}: nested too deeply")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r"\(at line (\d+), column (\d+)\)", message)
        if at is None:
            raise FileError(f"{path}:{_line_at(text, len(text))}: not valid TOML: {message}") from None
        message = message[: at.start()].strip()
        raise FileError(f"{path}:{at[1]}: not valid TOML: {message} (column {at[2]})") from None
    except ValueError as error:  # more digits than Python converts
        raise FileError(f"{path}: not valid TOML: {error}") from None
    return content, _toml_lines(text)


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_DEEP_KEY = re.compile(rf"(?<![\w-])(?:{_PART}\s*\.\s*){{20}}")
_TOML_LINE = re.compile(rf"\s*(?:\[\[\s*(?P<list>{_KEY})\s*\]\]|\[\s*(?P<table>{_KEY})\s*\]|(?P<key>{_KEY})\s*=)")


def _toml_lines(text: str) -> dict[KeyPath, int]:
    """Return the lines of keys, from a scan that follows [headers] and skips text in triple quotes."""
    lines: dict[KeyPath, int] = {}
    header: KeyPath = ()
    counts: Counter[KeyPath] = Counter()
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        match = None if fence else _TOML_LINE.match(line)
        for mark in re.findall(r'"""' + "|'''", line):
            fence = "" if fence == mark else fence or mark
        if not match:
            continue
        name = match["list"] or match["table"] or match["key"]
        parts = tuple(part.strip("\"'") for part in re.findall(_PART, name))
        above = header if match["key"] else ()
        for end in range(1, len(parts) + 1):
            lines.setdefault(above + parts[:end], number)
        if match["list"]:
            header = (*parts, counts[parts])
            lines[header] = number
            counts[parts] += 1
        elif match["table"]:
            header = parts
    return lines


def _read_yaml(path: Path, text: str) -> tuple[dict[str, Any] | list[Any], dict[KeyPath, int]]:
    import yaml

    try:
        loader = _yaml_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, (yaml.MappingNode, yaml.SequenceNode)):
            raise FileError(f"{path}:{_line(node)}: expected `key: value` lines")
        reader = _YamlReader(path, loader)
        return reader.value(node, ()), reader.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise FileError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise FileError(f"{path}:{_line_at(text, error.position)}: not valid YAML: {error.reason}") from None


@cache
def _yaml_loader() -> Any:
    """Return a loader that reads `1e-3` as a number and dates as text, unlike YAML 1.1."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    exponent = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+.0123456789"))
    return Loader


def _line(node: Any) -> int:
    return node.start_mark.line + 1


@dataclass
class _YamlReader:
    """Converts nodes to values and records lines. An aliased node is converted once and its value is shared."""

    path: Path
    loader: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=dict)

    def value(self, node: Any, at: KeyPath) -> Any:
        """Return the value of a node; `at` is the path of its key."""
        if id(node) not in self.values:
            if (node.id, node.tag) == ("mapping", "tag:yaml.org,2002:map"):
                self.values[id(node)] = self.mapping(node, at)
            elif (node.id, node.tag) == ("sequence", "tag:yaml.org,2002:seq"):
                self.lines |= {(*at, index): _line(child) for index, child in enumerate(node.value)}
                self.values[id(node)] = [self.value(child, (*at, index)) for index, child in enumerate(node.value)]
            else:
                self.values[id(node)] = self.scalar(node)
        return self.values[id(node)]

    def scalar(self, node: Any) -> str | int | float | bool | None:
        """Return the value of a scalar. Raises FileError for other values, which a tag may construct."""
        try:
            value = self.loader.construct_object(node)
        except (ValueError, OverflowError, TypeError, KeyError) as error:
            raise FileError(f"{self.path}:{_line(node)}: not valid YAML: {error}") from None
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        raise FileError(f"{self.path}:{_line(node)}: the tag {node.tag} is not allowed in settings")

    def mapping(self, node: Any, at: KeyPath) -> dict[str, Any]:
        """Return a dict, in which the mapping's own keys win over merged ones."""
        result: dict[str, Any] = {}
        merged: list[tuple[int, Any]] = []
        for key_node, child in node.value:
            key, line = key_node.value, _line(key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                inherited = self.value(child, (*at, "<<"))
                merged += [(line, table) for table in (inherited if isinstance(inherited, list) else [inherited])]
                continue
            if not isinstance(key, str):
                raise FileError(f"{self.path}:{line}: a key must be a plain name")
            if key in result:
                raise FileError(f"{self.path}:{line}: {key}: set twice, first at line {self.lines[(*at, key)]}")
            self.lines[(*at, key)] = line
            result[key] = self.value(child, (*at, key))
        for line, table in merged:
            if not isinstance(table, dict):
                raise FileError(f"{self.path}:{line}: <<: expected a mapping to merge")
            self.lines |= {(*at, key): line for key in table if key not in result}
            result |= {key: value for key, value in table.items() if key not in result}
        return result
