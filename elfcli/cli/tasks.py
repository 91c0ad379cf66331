"""`elf tasks`: list tasks, models and published checkpoints."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from elfcli.cli import options as o
from elfcli.cli.output import FORMAT, wants_json


def tasks(
    format_: Annotated[str, o.option("--format", "table|json", FORMAT)] = "table",
    json_flag: Annotated[bool, o.option("--json", "", "", hidden=True)] = False,
) -> None:
    """List tasks, models and published checkpoints, with sizes and published figures.

    Example: elf tasks --format json
    """
    as_json = wants_json(format_, json_flag)
    found = {"tasks": all_tasks(), "models": all_models(), "checkpoints": all_checkpoints()}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    print_table("Tasks", {"--task": "name", "kind": "kind", "length": "max_length", "metrics": "metrics",
                          "model": "model", "training data": "data"}, found["tasks"])  # fmt: skip
    print_table("Models (parameters with T5-small's width and vocabulary)",
                {"--model": "name", "depth": "depth", "width": "hidden_size", "heads": "num_heads",
                 "parameters": "parameters", "float32 weights": "weights"}, found["models"])  # fmt: skip
    print_table("Published checkpoints",
                {"--checkpoint": "name", "task": "task", "model": "model", "parameters": "parameters",
                 "published figures": "published"}, found["checkpoints"])  # fmt: skip


def all_tasks() -> list[dict]:
    """Return name, kind, lengths, metrics, default model and source of the training data of every task preset."""
    from elfcli.config.resolve import resolve, task_names
    from elfcli.corpus.public import SOURCES

    rows = []
    for name in task_names():
        config = resolve(task=name, environ={}).config
        rows.append({
            "name": name,
            "kind": "conditional" if config.data.max_input_length else "text",
            "max_length": config.data.max_length,
            "max_input_length": config.data.max_input_length,
            "metrics": list(config.evaluation.metrics),
            "model": config.network.model,
            "data": config.data.data_path or "generated",
            "source_data": SOURCES[name].repo if name in SOURCES else None,
        })  # fmt: skip
    return rows


def all_models() -> list[dict]:
    """Return name, dimensions, parameters and bytes of float32 weights of every model preset; None if not counted."""
    from elfcli.config.resolve import model_names, resolve
    from elfcli.weights.published import PARAMETERS

    rows = []
    for name in model_names():
        network, count = resolve(model=name, environ={}).config.network, PARAMETERS.get(name)
        sizes = network.model_dump(include={"depth", "hidden_size", "num_heads", "bottleneck_dim"})
        rows.append({"name": name, **sizes, "parameters": count, "weights": count and 4 * count})
    return sorted(rows, key=lambda row: row["parameters"] or 0)


def all_checkpoints() -> list[dict]:
    """Return name, task, model, size and figures of every published checkpoint."""
    from dataclasses import asdict

    from elfcli.weights.names import PUBLISHED, STUDENTS
    from elfcli.weights.published import published_scores, summary

    sizes = {row["name"]: {key: row[key] for key in ("parameters", "weights")} for row in all_models()}
    rows = []
    for name, (task, model) in PUBLISHED.items():
        figures = published_scores(task, model, name if name in STUDENTS else None)
        shown = {"figures": [asdict(figure) for figure in figures], "published": summary(figures)}
        rows.append({"name": name, "task": task, "model": model, **sizes[model], **shown})
    return rows


def print_table(title: str, columns: dict[str, str], rows: Sequence[dict]) -> None:
    """Print an aligned table of {heading: key of the rows}; a list in the last column takes a line per entry."""
    from elfcli.ui.table import aligned

    def cell(key: str) -> str:
        value = row[key]
        if value is None:
            return "-"
        if key in ("parameters", "weights"):
            return f"{value / 1e6:.1f}M" if key == "parameters" else f"{value / 1e6:,.0f} MB"
        return ", ".join(value) if isinstance(value, list) else str(value)

    lines, (*keys, final) = [list(columns)], columns.values()
    for row in rows:
        first, *more = (row[final] if isinstance(row[final], list) else [cell(final)]) or ["-"]
        lines += [[*map(cell, keys), first], *[["" for _ in keys] + [text] for text in more]]
    typer.echo("\n  ".join([title, *aligned(lines)]) + "\n")
