"""MkDocs hooks: pages made from the code (commands and settings), and formulas as MathML, which browsers render."""

import html
import inspect
import re
import types
import typing

import latex2mathml.converter
import typer.main
from mkdocs.structure.files import File

from elfcli.cli.app import COMMANDS, app
from elfcli.config.render import literal
from elfcli.config.schema import RENAMED, SECTIONS, SamplingPreset, Section

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)
"""A formula as pymdownx.arithmatex leaves it: \\(...\\) in the text, \\[...\\] as a block."""

KINDS = {str: "text", int: "integer", float: "number", bool: "boolean", types.NoneType: "None"}


def on_files(files, config):
    """Add the generated pages."""
    for name, text in (("commands", commands()), ("settings", settings())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_content(content, **_):
    """Convert the formulas of a page to MathML."""
    return FORMULA.sub(mathml, content)


def mathml(formula: re.Match) -> str:
    """Return a formula as MathML."""
    display = "block" if formula[1] == "div" else "inline"
    return latex2mathml.converter.convert(html.unescape(formula[2]).strip(), display=display)


def cell(text: str) -> str:
    """Return text as a table cell. Outside of code, < would begin an HTML tag."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    return re.sub(r"`[^`]*`|<", lambda found: "&lt;" if found[0] == "<" else found[0], line)


def commands() -> str:
    """Return a section per command: what it does, its arguments and its options."""
    group = typer.main.get_command(app)
    parts = ["# Commands\n\nGenerated from the code; `elf COMMAND --help` prints the same. `--debug`, anywhere on the "
             "line, shows tracebacks.\n"]  # fmt: skip
    for title, members in COMMANDS.items():
        parts.append(f"## {title}\n")
        for name in members:
            parts += command_page(f"elf {name}", group.commands[name], "###")
    return "\n".join(parts)


def command_page(name: str, command, level: str) -> list[str]:
    """Return the lines of a command, or of a group and its commands."""
    text = command_help(command)
    if hasattr(command, "commands"):
        lines = [f"{level} {name}\n", f"{text}\n"]
        for sub, inner in command.commands.items():
            lines += [] if inner.hidden else command_page(f"{name} {sub}", inner, level + "#")
        return lines
    arguments = [parameter for parameter in command.params if is_argument(parameter)]
    options = [option for option in command.params if not is_argument(option) and is_shown(option)]
    usage = " ".join([name, *map(argument_usage, arguments), "[OPTIONS]"])
    lines = [f"{level} {name}\n", f"```text\n{usage}\n```\n", text, ""]
    if arguments:
        lines += ["| argument | what it is |", "|---|---|"]
        lines += [f"| `{argument_name(one)}` | {cell(one.help or '')} |" for one in arguments] + [""]
    lines += ["| option | value | default | what it does |", "|---|---|---|---|"]
    for option in options:
        value = "" if option.is_flag else option.metavar or choices_of(option)
        has_default = option.default is not None and option.default is not False and not callable(option.default)
        default = f"`{cell(option.default)}`" if has_default else ""
        names = ", ".join(f"`{one}`" for one in option.opts)
        lines.append(f"| {names} | {cell(value)} | {default} | {option_help(option, arguments)} |")
    return [*lines, ""]


def command_help(command) -> str:
    """Return a command's help, its example and the lines after it as code blocks."""
    text, _, rest = inspect.cleandoc(command.help or "").replace("\b\n", "").partition("Example: ")
    example, _, more = rest.partition("\n\n")
    blocks = [" ".join(example.split()), more.strip()]
    code = "".join(f"\n\n```text\n{block}\n```" for block in blocks if block)
    return text.strip() + (f"\n\nExample:{code}" if code else "")


def choices_of(option) -> str:
    """Return the values of an option that takes one of several; empty for others and with earlier typers."""
    annotation = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    return "|".join(map(str, typing.get_args(annotation)))


def option_help(option, arguments: list) -> str:
    """Return an option's help; an option that says the same as the argument is named as its alias."""
    if (option.help or "").strip() == "The same." and arguments:
        return f"Alias of the argument `{argument_name(arguments[0])}`."
    return cell(option.help or "")


def argument_name(argument) -> str:
    """Return an argument's name in capitals or its metavar, without brackets."""
    return (argument.metavar or argument.name.upper()).strip("[]{}")


def argument_usage(argument) -> str:
    """Return an argument in the usage line, in brackets if it is optional."""
    return argument_name(argument) if argument.required else f"[{argument_name(argument)}]"


def is_argument(parameter) -> bool:
    """Return whether a parameter is an argument, not an option."""
    return parameter.param_type_name == "argument"


def is_shown(option) -> bool:
    """Return whether an option is part of the reference."""
    return not option.hidden and option.name != "help"


def settings() -> str:
    """Return a table per section of the schema."""
    parts = ["# Settings\n\nGenerated from the code. Pass a setting as `--set name=value`, in a file, or as "
             "`ELF_NAME=value` in the environment; `elf config show` prints the value that holds and its origin. "
             "Task and model presets set many of these; the defaults below apply without presets.\n"]  # fmt: skip
    for name, section in SECTIONS.items():
        parts.append(section_table(name, section))
    parts.append(section_table("sampling (a list of entries)", SamplingPreset))
    return "\n".join(parts)


def section_table(title: str, section: type[Section]) -> str:
    """Return the settings of a section, with their former names."""
    former = {name: [old for old, new in RENAMED.items() if new == name] for name in section.model_fields}
    lines = [f"## {title}\n", "| setting | type | default | what it is |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        text = cell(field.description or "")
        if former[name]:
            text += f" (also accepted: {', '.join(f'`{old}`' for old in former[name])})"
        default = cell(field.default if isinstance(field.default, str | None) else literal(field.default))
        lines.append(f"| `{name}` | {cell(kind_of(field.annotation))} | `{default}` | {text} |")
    return "\n".join([*lines, ""])


def kind_of(annotation) -> str:
    """Return a type in words that a settings file knows: number, text, list of numbers, one of several values."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind_of(one) for one in inner))
    if origin is tuple:
        return (
            f"list of {kind_of(inner[0])}".replace("integer", "integers")
            .replace("number", "numbers")
            .replace("text", "texts")
        )
    return KINDS.get(annotation, inspect.formatannotation(annotation))
