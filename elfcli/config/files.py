"""Reads settings files (TOML or YAML) and records the line of every key for error messages.

Values are plain Python (dict, list, str, int, float, bool, None). A line is found by the path of its key from the top
of the file, for example ("optimization", "blr") or ("sampling", 0, "cfgs").
"""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elfcli.errors import InputError, near_file

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 100_000
MAX_NUMBER_CHARS = 100  # characters of a number with an exponent

KeyPath = tuple[str | int, ...]


class FileError(InputError):
    """A file that cannot be read as settings; the message starts with `file:line:`."""


@dataclass(frozen=True)
class SettingsFile:
    """`content`: the top-level mapping, or the list of a file that holds sampling settings only."""

    path: Path
    content: dict[str, Any] | list[Any]
    lines: dict[KeyPath, int]

    def line_of(self, *path: str | int) -> int | None:
        """Line (from 1) of the key at `path`, or of the nearest key that encloses it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read_settings_file(path: str | Path) -> SettingsFile:
    """Reads a .toml, .yaml or .yml file. FileError for a missing, oversized or malformed one."""
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
        raise FileError(f"{path}: larger than {MAX_BYTES // 1024} KiB, so hardly a settings file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileError(f"{path}:{line}: not UTF-8 text") from None
    return SettingsFile(path, *reader(path, text.replace("\r\n", "\n")))


def _read_toml(path: Path, text: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    if deep := _DEEP_KEY.search(text):  # tomllib's time grows with the square of a key's parts
        line = text.count("\n", 0, deep.start()) + 1
        raise FileError(f"{path}:{line}: nested deeper than {MAX_DEPTH} levels")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r"\(at line (\d+), column (\d+)\)", message)
        if at is None:
            raise FileError(f"{path}:{text.count(chr(10)) + 1}: not valid TOML: {message}") from None
        message = message[: at.start()].strip()
        raise FileError(f"{path}:{at[1]}: not valid TOML: {message} (column {at[2]})") from None
    except RecursionError:
        raise FileError(f"{path}: nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # more digits than Python converts
        raise FileError(f"{path}: not valid TOML: {error}") from None
    return content, _toml_lines(text)


_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_DEEP_KEY = re.compile(rf"(?<![\w-])(?:{_PART}\s*\.\s*){{{MAX_DEPTH}}}")
_TOML_LINE = re.compile(rf"\s*(?:\[\[\s*(?P<list>{_KEY})\s*\]\]|\[\s*(?P<table>{_KEY})\s*\]|(?P<key>{_KEY})\s*=)")


def _toml_lines(text: str) -> dict[KeyPath, int]:
    """Lines of keys, from a scan that follows [headers] and skips text in triple quotes."""
    lines: dict[KeyPath, int] = {}
    header: KeyPath = ()
    counts: Counter[KeyPath] = Counter()
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        found = None if fence else _TOML_LINE.match(line)
        for mark in re.findall(r'"""' + "|'''", line):
            fence = "" if fence == mark else fence or mark
        if not found:
            continue
        name = found["list"] or found["table"] or found["key"]
        parts = tuple(part.strip("\"'") for part in re.findall(_PART, name))
        above = header if found["key"] else ()
        for end in range(1, len(parts) + 1):
            lines.setdefault(above + parts[:end], number)
        if found["list"]:
            header = (*parts, counts[parts])
            lines[header] = number
            counts[parts] += 1
        elif found["table"]:
            header = parts
    return lines


def _read_yaml(path: Path, text: str) -> tuple[dict[str, Any] | list[Any], dict[KeyPath, int]]:
    import yaml

    try:
        loader = _bounded_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, (yaml.MappingNode, yaml.SequenceNode)):
            raise FileError(f"{path}:{_line(node)}: expected `key: value` lines")
        walk = _YamlWalk(path, loader, {})
        return walk.value(node, ()), walk.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise FileError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FileError(f"{path}:{line}: not valid YAML: {error.reason}") from None


def _line(node) -> int:
    return node.start_mark.line + 1


def _bounded_loader():
    import yaml

    class BoundedLoader(yaml.SafeLoader):
        """Fails at MAX_DEPTH while composing, before Python's own recursion limit."""

        depth = 0

        def compose_node(self, parent, index):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    return BoundedLoader


_DATE = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass
class _YamlWalk:
    """Converts nodes to values; aliases are expanded, so that the number of values and the depth are limited."""

    path: Path
    loader: Any
    lines: dict[KeyPath, int]
    count: int = 0

    def value(self, node, at: KeyPath, depth: int = 0) -> Any:
        import yaml

        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise FileError(f"{self.path}:{_line(node)}: aliases expand to too many values; write the settings out")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            raise self.bad_tag(node)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at, depth)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                self.lines[(*at, index)] = _line(child)
                items.append(self.value(child, (*at, index), depth + 1))
            return items
        if node.tag == _DATE:
            return node.value
        if node.style is None and len(node.value) < MAX_NUMBER_CHARS and _EXPONENT.fullmatch(node.value):
            return float(node.value)  # YAML 1.1 takes 1e-3 for text
        return self.scalar(node)

    def scalar(self, node) -> Any:
        try:
            value = self.loader.construct_object(node)
        except (ValueError, OverflowError, TypeError, KeyError) as error:
            raise FileError(f"{self.path}:{_line(node)}: not valid YAML: {error}") from None
        if value is not None and not isinstance(value, (str, int, float, bool)):
            raise self.bad_tag(node)
        return value

    def bad_tag(self, node) -> FileError:
        return FileError(f"{self.path}:{_line(node)}: the tag {node.tag} has no place among settings")

    def mapping(self, node, at: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, int] = {}
        merged = []
        for key_node, child in node.value:
            if key_node.tag == _MERGE:
                merged.append(child)
                continue
            key = key_node.value
            if not isinstance(key, str):
                raise FileError(f"{self.path}:{_line(key_node)}: a key must be a plain name")
            if key in own:
                raise FileError(f"{self.path}:{_line(key_node)}: {key}: set twice, first at line {own[key]}")
            own[key] = self.lines[(*at, key)] = _line(key_node)
            result[key] = self.value(child, (*at, key), depth + 1)
        for child in merged:
            inherited = self.value(child, (*at, "<<"), depth + 1)
            for table in inherited if isinstance(inherited, list) else [inherited]:
                if not isinstance(table, dict):
                    raise FileError(f"{self.path}:{_line(child)}: <<: expected a mapping to merge")
                for key, value in table.items():
                    self.lines.setdefault((*at, key), _line(child))
                    result.setdefault(key, value)
        return result
