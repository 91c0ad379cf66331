"""What the page of `elf report` shows, read from run folders."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elfcli.data.buckets import FULL_LENGTH_SHARE
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
PADDED_LOSSES = ("loss", "denoise_loss", "decode_loss")
"""Means over all positions of a batch, with padding, which is easy: they drop where buckets end."""
MAX_POINTS, MAX_SAMPLES = 400, 8


def report_data(runs: Sequence[Overview]) -> dict[str, Any]:
    """Return the page's data, as JSON without numbers that are not finite."""
    marks = [round((1 - FULL_LENGTH_SHARE) * run.total) for run in runs if run.total and run.settings["buckets"]]
    return {
        "runs": [_about(run) for run in runs],
        "differ": {name: [_display_value(run.settings[name]) for run in runs] for name in differing(runs)},
        "curves": [
            {
                "title": title,
                "lines": [_points(run.rows, name) for run in runs],
                "marks": marks if name in PADDED_LOSSES else [],
            }
            for name, title in CURVES.items()
            if any(run.values(name) for run in runs)
        ],
        "scores": [row for run in runs for row in _recorded_scores(run.folder)],
        "samples": [{"run": str(run.folder), "texts": _samples_of(run.folder)} for run in runs],
    }


def _about(run: Overview) -> dict[str, Any]:
    data, trained_on = run.folder / DATA_FILE, f"{run.settings['data_path'] or run.settings['task']}"
    if data.is_file():
        trained_on += f", {json.loads(data.read_text(encoding='utf-8')).get('examples')} examples"
    starts = []
    for start in recorded_starts(run.folder):
        git, packages = start.get("git"), start.get("packages", {}).items()
        starts.append(
            {
                "time": start.get("time", ""),
                "command": " ".join(map(str, start.get("command", ()))),
                "on": f"Python {start.get('python')}, {start.get('platform')}",
                "packages": ", ".join(f"{name} {version}" for name, version in packages),
                "code": f"commit {git['commit'][:12]}{', changed' * bool(git.get('dirty'))}" if git else "no checkout",
            }
        )
    known = {"name": str(run.folder), "step": run.step, "steps": run.total, "age": age(run.changed)}
    return known | {"trained_on": trained_on, "starts": starts}


def _display_value(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _points(rows: Sequence[dict], name: str) -> list[list[float]]:
    """Return (step, value) of a curve, evenly thinned out; the last point stays."""
    points = [[row["step"], row[name]] for row in rows if row.get(name) is not None and math.isfinite(row[name])]
    apart = -(-len(points) // MAX_POINTS) or 1
    return points[::-apart][::-1]


def _recorded_scores(run: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per result of `elf eval`, `elf sweep` and online evaluation in the run's folder."""
    for path in sorted(run.rglob(RESULTS_FILE)):
        for result in read_jsonl(path) if path.stat().st_size else ():
            scores = result.get("scores", ())
            yield {
                "run": str(run),
                "of": path.parent.relative_to(run).as_posix(),
                "setting": result.get("name"),
                "cells": [[title, figure(s, name)] for s in scores for name, title in columns(s["metric"]).items()],
                "samples": scores[0].get("num_samples") if scores else None,
                "signature": "; ".join(f"{score['metric']}: {score.get('signature', '-')}" for score in scores),
            }


def _samples_of(run: Path) -> list[dict[str, Any]]:
    """Return the samples taken during training, by source: {"input", "reference", "texts": [[step, text], ...]}."""

    def step_of(path: Path) -> int:
        digits = path.stem.removeprefix("training-step")
        return int(digits) if digits.isdecimal() else 0

    by_id: dict[Any, dict[str, Any]] = {}
    for path in sorted((run / SAMPLES_FOLDER).glob("training-step*.jsonl"), key=step_of):
        for row in read_jsonl(path)[:MAX_SAMPLES]:
            source = by_id.setdefault(row.get("id"), {"texts": []})
            source |= {name: row[name] for name in ("input", "reference") if name in row}
            source["texts"].append([step_of(path), row.get("generated", "")])
    return list(by_id.values())
