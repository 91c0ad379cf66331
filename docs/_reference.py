"""Pages of the site that are made from the code: the commands with their options, and every setting."""

import inspect
import re

import typer.main
from mkdocs.structure.files import File

from elfcli.cli.app import COMMANDS, app
from elfcli.config.schema import SECTIONS, SamplingPreset, Section


def on_files(files, config):
    for name, text in (("commands", commands()), ("settings", settings())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def commands() -> str:
    """A section per command: what it does, its arguments and its options."""
    group = typer.main.get_command(app)
    parts = ["# Commands\n\nMade from the code; `elf COMMAND --help` prints the same. `--debug`, anywhere on the line, "
             "shows tracebacks.\n"]  # fmt: skip
    for title, members in COMMANDS.items():
        parts.append(f"## {title}\n")
        for name in members:
            parts += command_page(f"elf {name}", group.commands[name], "###")
    return "\n".join(parts)


def command_page(name: str, command, level: str) -> list[str]:
    if hasattr(command, "commands"):
        found = [f"{level} {name}\n", f"{inspect.cleandoc(command.help or '')}\n"]
        for sub, inner in command.commands.items():
            found += command_page(f"{name} {sub}", inner, level + "#")
        return found
    words = [argument.metavar or argument.name.upper() for argument in command.params if is_argument(argument)]
    usage = " ".join([name, *words, "[OPTIONS]"])
    lines = [f"{level} {name}\n", f"```\n{usage}\n```\n", inspect.cleandoc(command.help or ""), "",
             "| option | value | default | what it does |", "|---|---|---|---|"]  # fmt: skip
    for option in command.params:
        if not is_argument(option) and not option.hidden and option.name != "help":
            value = "" if option.is_flag else option.metavar or ""
            default = "" if option.default in (None, False) or callable(option.default) else option.default
            names = ", ".join(f"`{text}`" for text in option.opts)
            lines.append(f"| {names} | {cell(value)} | {cell(default)} | {cell(option.help or '')} |")
    return [*lines, ""]


def is_argument(parameter) -> bool:
    return parameter.param_type_name == "argument"


def settings() -> str:
    """A table per section of the schema."""
    parts = ["# Settings\n\nMade from the code. A setting is given as `--set name=value`, in a file, or as "
             "`ELF_NAME=value` in the environment; `elf config show` says which value holds and where it came from. "
             "Task and model presets set many of these: the defaults below are those without any.\n"]  # fmt: skip
    for name, section in SECTIONS.items():
        parts.append(section_table(name, section))
    parts.append(section_table("sampling (a list of entries)", SamplingPreset))
    return "\n".join(parts)


def section_table(title: str, section: type[Section]) -> str:
    lines = [f"## {title}\n", "| setting | type | default | what it is |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        annotation = inspect.formatannotation(field.annotation)
        kind = re.sub(r"(typing|annotated_types|pydantic\.\w+)\.", "", annotation)
        kind = re.sub(r"Annotated\[(\w+)[^\]]*\]+", r"\1", kind).replace("NoneType", "None")
        lines.append(f"| `{name}` | {cell(kind)} | `{cell(field.default)}` | {cell(field.description or '')} |")
    return "\n".join([*lines, ""])
