"""What the page of `elf report` shows, read from run folders."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elfcli.evaluation.evaluate import RESULTS_FILE
from elfcli.evaluation.online import SAMPLES_FOLDER
from elfcli.runs.folder import DATA_FILE, recorded_starts
from elfcli.runs.overview import Overview, age, differing
from elfcli.scoring import columns
from elfcli.scoring.report import figure
from elfcli.scoring.samples_file import read_jsonl

CURVES = {
    "loss": "loss",
    "denoise_loss": "denoise loss",
    "decode_loss": "decode loss",
    "val_denoise_loss": "held-out denoise error",
    "val_decode_loss": "held-out decode loss",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens/s",
}
MAX_POINTS, MAX_SAMPLES = 400, 8


def report_data(runs: Sequence[Overview]) -> dict[str, Any]:
    """The page's data, as JSON without numbers that are not finite."""
    names = differing(runs)
    return {
        "runs": [about(run) for run in runs],
        "differ": {name: [display_value(run.settings[name]) for run in runs] for name in names},
        "curves": [
            {"title": title, "lines": [points(run.rows, name) for run in runs]}
            for name, title in CURVES.items()
            if any(run.values(name) for run in runs)
        ],
        "scores": [row for run in runs for row in recorded_scores(run.folder)],
        "samples": [{"run": str(run.folder), "texts": samples_of(run.folder)} for run in runs],
    }


def about(run: Overview) -> dict[str, Any]:
    data = run.folder / DATA_FILE
    return {
        "name": str(run.folder),
        "step": run.step,
        "steps": run.total,
        "age": age(run.changed),
        "trained_on": f"{run.settings['data_path'] or run.settings['task']}"
        + (f", {json.loads(data.read_text(encoding='utf-8')).get('examples')} examples" if data.is_file() else ""),
        "starts": [
            {
                "time": start.get("time", ""),
                "command": " ".join(map(str, start.get("command", ()))),
                "on": f"Python {start.get('python')}, {start.get('platform')}",
                "packages": ", ".join(f"{name} {found}" for name, found in start.get("packages", {}).items()),
                "code": code_of(start.get("git")),
            }
            for start in recorded_starts(run.folder)
        ],
    }


def code_of(git: dict | None) -> str:
    return f"commit {git['commit'][:12]}{', changed' if git.get('dirty') else ''}" if git else "no checkout"


def display_value(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def points(rows: Sequence[dict], name: str) -> list[list[float]]:
    """(step, value) of a curve, thinned out evenly; the last point stays."""
    found = [[row["step"], row[name]] for row in rows if row.get(name) is not None and math.isfinite(row[name])]
    apart = -(-len(found) // MAX_POINTS) or 1
    return found[::-apart][::-1]


def recorded_scores(run: Path) -> Iterator[dict[str, Any]]:
    """A row per result of `elf eval`, `elf sweep` and online evaluation that lies in the run."""
    for path in sorted(run.rglob(RESULTS_FILE)):
        for result in read_jsonl(path) if path.stat().st_size else ():
            cells = [
                [title, figure(score, name)]
                for score in result.get("scores", ())
                for name, title in columns(score["metric"]).items()
            ]
            samples = result["scores"][0].get("num_samples") if result.get("scores") else None
            signature = "; ".join(f"{score['metric']}: {score.get('signature', '-')}" for score in result["scores"])
            yield {"run": str(run), "of": path.parent.relative_to(run).as_posix(), "setting": result.get("name"),
                   "cells": cells, "samples": samples, "signature": signature}  # fmt: skip


def samples_of(run: Path) -> list[dict[str, Any]]:
    """The samples taken while training, by source: {"input", "reference", "texts": [[step, text], ...]}."""
    found: dict[Any, dict[str, Any]] = {}
    for path in sorted((run / SAMPLES_FOLDER).glob("training-step*.jsonl"), key=step_of):
        for row in read_jsonl(path)[:MAX_SAMPLES]:
            same = found.setdefault(row.get("id"), {"texts": []})
            same |= {name: row[name] for name in ("input", "reference") if name in row}
            same["texts"].append([step_of(path), row.get("generated", "")])
    return list(found.values())


def step_of(path: Path) -> int:
    digits = path.stem.removeprefix("training-step")
    return int(digits) if digits.isdecimal() else 0
