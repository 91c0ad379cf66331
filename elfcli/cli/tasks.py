"""`elf tasks`: what can be trained and what is published."""

from typing import Annotated

import typer

from elfcli.cli import options as o


def tasks(as_json: Annotated[bool, o.option("--json", "", "The same as JSON.")] = False) -> None:
    """List tasks, models and published checkpoints, with sizes and published figures."""
    import json

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
    """Name, kind, lengths, metrics, default model and source of the training data of every task preset."""
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
            "data": config.data.data_path or "generated here",
            "source_data": SOURCES[name].repo if name in SOURCES else None,
        })  # fmt: skip
    return rows


def all_models() -> list[dict]:
    """Name, dimensions, parameters and bytes of float32 weights of every model preset; None where not counted."""
    from elfcli.config.resolve import model_names, resolve
    from elfcli.weights.published import PARAMETERS

    rows = []
    for name in model_names():
        network, count = resolve(model=name, environ={}).config.network, PARAMETERS.get(name)
        sizes = network.model_dump(include={"depth", "hidden_size", "num_heads", "bottleneck_dim"})
        rows.append({"name": name, **sizes, "parameters": count, "weights": count and 4 * count})
    return sorted(rows, key=lambda row: row["parameters"] or 0)


def all_checkpoints() -> list[dict]:
    """Name, task, model, size and figures of every published checkpoint."""
    from dataclasses import asdict

    from elfcli.weights.names import PUBLISHED, STUDENTS
    from elfcli.weights.published import published_scores, summary

    sizes = {row["name"]: {key: row[key] for key in ("parameters", "weights")} for row in all_models()}
    rows = []
    for name, (task, model) in PUBLISHED.items():
        figures = published_scores(task, model, name in STUDENTS)
        shown = {"figures": [asdict(figure) for figure in figures], "published": summary(figures)}
        rows.append({"name": name, "task": task, "model": model, **sizes[model], **shown})
    return rows


def print_table(title: str, columns: dict[str, str], rows: list[dict]) -> None:
    """An aligned table of {heading: key of the rows}; a list in the last column takes a line per entry."""
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
