"""Reads every source of settings (files, environment, `--set`, flags) as entries: name, checked value, origin."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from elfcli.config.files import FileError, KeyPath, SettingsFile, read_settings_file
from elfcli.config.presets import preset_name
from elfcli.config.reference import is_flat
from elfcli.config.schema import REMOVED_SCHEDULE, RENAMED, RETIRED, SECTION_OF, SECTIONS, SamplingPreset
from elfcli.config.values import BadValue, check_sampling_field, check_setting, parse_setting, parse_toml_value
from elfcli.errors import did_you_mean

RESERVED_ENVIRONMENT = {"ELF_DEBUG"}
COMPLETE = "complete"
"""First key of a run's config.toml: the file holds every value, so no preset applies below it."""


@dataclass(frozen=True)
class SettingOrigin:
    """The layer that set a value, and its file and line (from 1) if there is one."""

    layer: str
    file: str | None = None
    line: int | None = None

    def place(self) -> str:
        """Return `file:line`, or the layer if there is no file."""
        if self.file is None:
            return self.layer
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        if self.file is None:
            return self.layer
        name = preset_name(Path(self.file)) if self.layer.endswith("preset") else None
        return f"{self.layer} {self.place()}" if name is None else f"{self.layer} {name}:{self.line}"


@dataclass(frozen=True)
class Entry:
    """The checked value of one setting in one layer. name: a bare name, or `sampling`."""

    name: str
    value: Any
    origin: SettingOrigin


@dataclass
class Problems:
    """Problem lines and the bare names they concern, so that no name is reported twice.

    notices: lines about settings that were read under another name or value.
    """

    lines: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)

    def add(self, line: str, names: Sequence[str] = ()) -> None:
        """Add a problem with the settings `names`, unless the same line is there already."""
        if line not in self.lines:
            self.lines.append(line)
        self.names.update(names)


def bare_name(key: str) -> str | None:
    """Return the current bare name of `name` or `section.name`, or None if there is no such setting."""
    section, dot, leaf = key.rpartition(".")
    leaf = RENAMED.get(leaf, leaf)
    home = "" if leaf == "sampling" else SECTION_OF.get(leaf) or RETIRED.get(leaf)
    return leaf if home is not None and (not dot or home == section) else None


def notice_if_renamed(key: str, place: str, problems: Problems) -> None:
    """Add a notice if `key` is a former name."""
    leaf = key.rpartition(".")[2]
    if leaf in RENAMED:
        problems.notices.append(f"{place}: {leaf} is now called {RENAMED[leaf]}")


def unknown(key: str) -> str:
    """Return the problem line for a key that `bare_name` does not know."""
    if key in SECTIONS:
        return f"{key}: is a section, not a setting; write `[{key}]` above its settings, or `{key}.<name>`"
    leaf = key.rpartition(".")[2]
    if leaf in SECTION_OF:
        return f"{key}: unknown setting (did you mean '{SECTION_OF[leaf]}.{leaf}'?)"
    names = [*SECTION_OF, "sampling"]
    return f"{key}: unknown setting{did_you_mean(key, names) or did_you_mean(leaf, names)}"


def shown_path(path: str | Path) -> str:
    """Return `path` for messages: relative if it is below the working folder."""
    relative = os.path.relpath(path)
    return os.path.normpath(path) if relative.startswith(os.pardir) else relative


class FileLayer(NamedTuple):
    """Entries of a file.

    complete: the file says that it holds every value, so lower layers are ignored. flat: it looks like a reference
    file.
    """

    entries: list[Entry]
    complete: bool = False
    flat: bool = False


def file_entries(path: str | Path, layer: str, problems: Problems) -> FileLayer:
    """Return the entries of a settings file."""
    try:
        source = read_settings_file(path)
    except FileError as error:
        problems.add(str(error))
        return FileLayer([])
    content = {"sampling": source.content} if isinstance(source.content, list) else dict(source.content)
    complete = content.pop(COMPLETE, False)
    if not isinstance(complete, bool):
        problems.add(f"{source.path}:{source.line_of(COMPLETE)}: {COMPLETE}: expected true or false")
    entries: list[Entry] = []
    seen: dict[str, str] = {}
    of_reference = is_flat(source)
    for key, value, where in _flattened(content):
        origin = SettingOrigin(layer, shown_path(path), source.line_of(*where))
        name = bare_name(key)
        if name is None:
            problems.add(f"{origin.place()}: {unknown(key)}")
        elif name in seen:
            problems.add(f"{origin.place()}: {key}: set twice in this file (also as '{seen[name]}')", [name])
        else:
            seen[name] = key
            if complete is not True and not of_reference:
                notice_if_renamed(key, origin.place(), problems)
            if name == "sampling":
                entries += _sampling_entry(value, origin, source, problems)
            else:
                entries += _checked(name, value, check_setting, origin, f"{origin.place()}: {name}", problems)
    if complete is not True:
        entries += _sampling_from_path(entries, problems, Path(path).parent)
    return FileLayer(entries, complete is True, of_reference)


def _flattened(content: dict[str, Any]) -> Iterator[tuple[str, Any, KeyPath]]:
    """Yield (key as written, value, path of the key) of every setting, including those inside sections."""
    for key, value in content.items():
        if key in SECTIONS and isinstance(value, dict):
            for leaf, inner in value.items():
                yield f"{key}.{leaf}", inner, (key, leaf)
        elif key not in SECTIONS or value is not None:
            yield key, value, (key,)


def _checked(
    name: str, value: Any, check: Callable[[str, Any], Any], origin: SettingOrigin, place: str, problems: Problems
) -> list[Entry]:
    """Return the entry, or nothing if `check` refuses the value; `place` starts the problem line."""
    try:
        return [Entry(name, check(name, value), origin)]
    except BadValue as error:
        if value is not None:  # YAML's null leaves the setting unset
            problems.add(f"{place}: {error}", [name])
        return []


def _sampling_entry(value: Any, origin: SettingOrigin, source: SettingsFile | None, problems: Problems) -> list[Entry]:
    """Return the entry of a list of tables; `source`, if any, has the lines of the inner keys."""
    if value is None:
        return []
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        problems.add(f"{origin.place()}: sampling: expected a list of tables ([[sampling]])", ["sampling"])
        return []
    at_top = source is not None and isinstance(source.content, list)
    before = len(problems.lines)
    settings = []
    for index, item in enumerate(value):
        fields: dict[str, Any] = {}
        for written, inner in item.items():
            key = RENAMED.get(written, written)
            where = (index, written) if at_top else ("sampling", index, written)
            place = SettingOrigin("", origin.file, source.line_of(*where)).place() if source else origin.place()
            if key not in SamplingPreset.model_fields:
                near = did_you_mean(str(key), SamplingPreset.model_fields)
                problems.add(f"{place}: sampling.{key}: unknown setting{near}", ["sampling"])
            elif key == "time_schedule" and inner == "fitted":
                problems.notices.append(f"{place}: {REMOVED_SCHEDULE}; it is replaced")
                fields[key] = "uniform"
            elif inner is not None:
                try:
                    fields[key] = check_sampling_field(key, inner)
                except BadValue as error:
                    problems.add(f"{place}: sampling.{key}: {error}", ["sampling"])
        settings.append(SamplingPreset(**fields))
    return [Entry("sampling", tuple(settings), origin)] if len(problems.lines) == before else []


def _sampling_from_path(entries: list[Entry], problems: Problems, folder: Path | None = None) -> list[Entry]:
    """Return the `sampling` entry of the file in a layer's sampling_configs_path, if it is set."""
    named = next((entry for entry in reversed(entries) if entry.name == "sampling_configs_path"), None)
    if named is None or named.value is None:
        return []
    path = Path(named.value)
    if folder is not None and (folder / path).is_file():
        path = folder / path
    try:
        source = read_settings_file(path)
    except FileError as error:
        problems.add(f"{named.origin.place()}: sampling_configs_path: {error}", ["sampling"])
        return []
    content: Any = source.content
    line: int | None = 1
    if isinstance(content, dict):
        if content.keys() != {"sampling"}:
            problems.add(f"{path}: expected a list of sampling settings ([[sampling]] in TOML) and nothing else")
            return []
        content, line = content["sampling"], source.line_of("sampling")
    return _sampling_entry(content, SettingOrigin(named.origin.layer, shown_path(path), line), source, problems)


def environment_entries(environ: Mapping[str, str], problems: Problems) -> list[Entry]:
    """Return the entries of all `ELF_...` variables."""
    entries: list[Entry] = []
    for variable in sorted(environ):
        if not variable.startswith("ELF_") or variable in RESERVED_ENVIRONMENT:
            continue
        key = variable.removeprefix("ELF_").lower()
        name = bare_name(key)
        if variable != variable.upper() or name is None:
            known = [f"ELF_{other.upper()}" for other in [*SECTION_OF, "sampling"]]
            problems.add(f"{variable}: unknown setting{did_you_mean(variable.upper(), known)}")
            continue
        notice_if_renamed(key, variable, problems)
        entries += _text_entry(name, environ[variable], SettingOrigin("environment"), problems, place=variable)
    return entries + _sampling_from_path(entries, problems)


def set_entries(sets: Sequence[str], problems: Problems) -> list[Entry]:
    """Return the entries of `key=value` texts."""
    entries: list[Entry] = []
    for text in sets:
        key, equals, value = text.partition("=")
        name = bare_name(key.strip())
        if not equals:
            problems.add(f"--set {text}: expected key=value")
        elif name is None:
            problems.add(f"--set: {unknown(key.strip())}")
        else:
            notice_if_renamed(key.strip(), "--set", problems)
            entries += _text_entry(name, value.strip(), SettingOrigin("--set"), problems, place=f"--set {name}")
    return entries + _sampling_from_path(entries, problems)


def flag_entries(flags: Mapping[str, Any], problems: Problems) -> list[Entry]:
    """Return the entries of command-line flags, by bare name; None means that the flag was not passed."""
    entries: list[Entry] = []
    for key, value in flags.items():
        name = bare_name(key)
        if value is None:
            continue
        if name is None:
            problems.add(f"command line: {unknown(key)}")
            continue
        origin = SettingOrigin("command line")
        value = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        if isinstance(value, str):
            entries += _text_entry(name, value, origin, problems, place=f"command line: {name}")
        else:
            entries += _checked(name, value, check_setting, origin, f"command line: {name}", problems)
    return entries + _sampling_from_path(entries, problems)


def _text_entry(name: str, text: str, origin: SettingOrigin, problems: Problems, place: str) -> list[Entry]:
    if name == "sampling":
        return _sampling_entry(parse_toml_value(text), origin, None, problems)
    return _checked(name, text, parse_setting, origin, place, problems)
