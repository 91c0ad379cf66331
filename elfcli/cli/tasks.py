"""`elf tasks`: what can be trained and what is published."""

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="The same as JSON.")]


def tasks(as_json: JsonOption = False) -> None:
    """List tasks, models and published checkpoints, with sizes and published figures."""
    import json

    found = {"tasks": all_tasks(), "models": all_models(), "checkpoints": all_checkpoints()}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    print_table("Tasks", ("--task", "kind", "length", "metrics", "model", "training data"), found["tasks"],
                ("name", "kind", "max_length", "metrics", "model", "data"))  # fmt: skip
    print_table("Models (parameters with T5-small's width and vocabulary)",
                ("--model", "depth", "width", "heads", "parameters", "float32 weights"), found["models"],
                ("name", "depth", "hidden_size", "num_heads", "parameters", "weights"))  # fmt: skip
    print_table("Published checkpoints", ("--checkpoint", "task", "model", "parameters", "published figures"),
                found["checkpoints"], ("name", "task", "model", "parameters", "published"))  # fmt: skip


def all_tasks() -> list[dict]:
    """Name, kind, lengths, metrics, default model and source of the training data of every task preset."""
    from elfcli.config.resolve import resolve, task_names
    from elfcli.data.public import SOURCES

    rows = []
    for name in task_names():
        config = resolve(task=name, environ={}).config
        source = SOURCES[name].repo if name in SOURCES else None
        rows.append({
            "name": name,
            "kind": "conditional" if config.data.max_input_length else "text",
            "max_length": config.data.max_length,
            "max_input_length": config.data.max_input_length,
            "metrics": list(config.evaluation.metrics),
            "model": config.network.model,
            "data": config.data.data_path or "generated here",
            "source_data": source,
        })  # fmt: skip
    return rows


def all_models() -> list[dict]:
    """Name, dimensions, parameters and bytes of float32 weights of every model preset; None where not counted."""
    from elfcli.config.resolve import model_names, resolve
    from elfcli.hub.published import PARAMETERS

    rows = []
    for name in model_names():
        network = resolve(model=name, environ={}).config.network
        count = PARAMETERS.get(name)
        sizes = {key: getattr(network, key) for key in ("depth", "hidden_size", "num_heads", "bottleneck_dim")}
        rows.append({"name": name, **sizes, "parameters": count, "weights": count and 4 * count})
    return sorted(rows, key=lambda row: row["parameters"] or 0)


def all_checkpoints() -> list[dict]:
    """Name, task, model, size and figures of every published checkpoint."""
    from dataclasses import asdict

    from elfcli.hub.names import PUBLISHED
    from elfcli.hub.published import figures_of, summary

    counts = {row["name"]: row["parameters"] for row in all_models()}
    rows = []
    for name, (task, model) in PUBLISHED.items():
        figures = figures_of(task, model)
        rows.append({"name": name, "task": task, "model": model, "parameters": counts[model],
                     "weights": 4 * counts[model], "figures": [asdict(figure) for figure in figures],
                     "published": summary(figures)})  # fmt: skip
    return rows


def shown(key: str, value) -> str:
    if value is None:
        return "-"
    if key == "parameters":
        return f"{value / 1e6:.1f}M"
    if key == "weights":
        return f"{value / 1e6:,.0f} MB"
    return ", ".join(value) if isinstance(value, list) else str(value)


def print_table(title: str, heading: tuple[str, ...], rows: list[dict], keys: tuple[str, ...]) -> None:
    """An aligned table; a list in the last column takes a line per entry."""
    lines = [heading]
    for row in rows:
        last = row[keys[-1]]
        first, *rest = last if isinstance(last, list) else [shown(keys[-1], last)]
        lines.append((*(shown(key, row[key]) for key in keys[:-1]), first))
        lines += [(*("" for _ in keys[:-1]), more) for more in rest]
    widths = [max(len(line[place]) for line in lines) for place in range(len(keys))]
    typer.echo(title)
    for line in lines:
        typer.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo("")
