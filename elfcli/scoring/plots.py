"""Plots of a sweep: quality against network calls, the perplexity's frontier, quality against guidance. Series differ
by marker and dashes as well as by colour. `strips` draws the intervals in a terminal."""

from collections.abc import Callable, Sequence
from html import escape
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from elfcli.errors import InputError
from elfcli.outputs import write_whole
from elfcli.scoring.comparison import best_first, cost
from elfcli.ui.table import aligned

SUFFIXES = (".png", ".svg", ".html")
LINE_STYLES = tuple(zip("osD^vPX*", ("-", "--", "-.", ":") * 2, strict=True))
STRIP_WIDTH = 40
APART = 0.03  # shift of each series relative to the one before, so that no error bar hides another
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:80rem;padding:0 1rem}"
    "svg{max-width:100%;height:auto}td,th{padding:.2rem .8rem;text-align:left}"
)


def check_plot(path: Path | None) -> None:
    """Raise InputError if such a file cannot be made."""
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise InputError(f"--plot {path}: the name must end in {', '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib: pip install 'elfcli[plots]'")


def draw(results: Sequence[dict], path: Path, title: str) -> None:
    """Write the plots that the results have data for to one file, whole."""
    from matplotlib.figure import Figure

    scored = [result for result in results if first_score(result)["value"] is not None]
    if not scored:
        raise InputError(f"--plot {path}: no setting has a score to draw")
    panels = [against_calls]
    if len({result["setting"]["cfg"] for result in scored}) > 1:
        panels.append(against_cfg)
    if any(score["metric"] == "ppl" for score in scored[0]["scores"]):
        panels.append(frontier)
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        panel(axes, scored)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    file = BytesIO()
    figure.savefig(file, format=path.suffix.removeprefix(".").replace("html", "svg"), dpi=150)
    picture = file.getvalue()
    html = path.suffix == ".html"
    write_whole(path, page_of(title, picture[picture.index(b"<svg") :].decode(), scored) if html else picture)


def first_score(result: dict) -> dict:
    """Return the score by which a result is ranked."""
    return result["scores"][0]


def label(result: dict, without: str) -> str:
    """Return the name of a series: the setting without the field in which its results differ."""
    setting = result["setting"]
    gamma = f" gamma {setting['sde_gamma']:g}" if setting["sampling_method"] == "sde" else ""
    parts = [f"{setting['sampling_method']}{gamma}", setting["time_schedule"]]
    if setting["sampling_method"] == "refine":
        parts[1:] = ["noise resampled"] if setting["resample_noise"] else []
    if without != "num_sampling_steps":
        parts.append(f"{setting['num_sampling_steps']} steps")
    if without != "cfg":
        parts.append(f"CFG {setting['cfg']:g}")
    return ", ".join([*parts, f"w {setting.get('self_cond_scale', setting.get('self_cond_cfg_scale')):g}"])


def series(axes: Any, results: Sequence[dict], without: str, x_of: Callable[[dict], float]) -> None:
    """Draw a line with error bars for each group of results that differ only in the field `without`."""
    groups: dict[str, list[dict]] = {}
    for result in results:
        groups.setdefault(label(result, without), []).append(result)
    for number, (name, members) in enumerate(groups.items()):
        members.sort(key=x_of)
        marker, dashes = LINE_STYLES[number % len(LINE_STYLES)]
        scores = [first_score(member) for member in members]
        values = np.array([score["value"] for score in scores])
        ends = np.array([score.get("interval") or [score["value"]] * 2 for score in scores])
        bars = np.maximum([values - ends[:, 0], ends[:, 1] - values], 0)
        x = [x_of(member) * (1 + APART * number) for member in members]
        axes.errorbar(x, values, bars, marker=marker, linestyle=dashes, capsize=3, label=name)
    axes.set_ylabel(f"{first_score(results[0])['metric']} (95% interval)")


def against_calls(axes: Any, results: Sequence[dict]) -> None:
    """Draw the first metric against network calls."""
    series(axes, results, "num_sampling_steps", cost)
    axes.set_xscale("log", base=2)
    ticks = sorted({cost(result) for result in results})
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=7)
    axes.set_xlabel("network calls per text")


def against_cfg(axes: Any, results: Sequence[dict]) -> None:
    """Draw the first metric against the scale of classifier-free guidance."""
    series(axes, results, "cfg", lambda result: result["setting"]["cfg"])
    axes.set_xlabel("CFG scale")


def frontier(axes: Any, results: Sequence[dict]) -> None:
    """Draw perplexity against entropy: lower and further right is better, up to the real text's entropy."""
    for number, result in enumerate(sorted(results, key=cost)):
        score = next(score for score in result["scores"] if score["metric"] == "ppl")
        if score["value"] is None:
            continue
        marker, _ = LINE_STYLES[number % len(LINE_STYLES)]
        axes.plot(score["entropy"], score["value"], marker=marker, linestyle="none", label=result["name"])
        real = (score.get("details") or {}).get("real") or {}
    if real.get("entropy"):
        axes.plot(real["entropy"], real["ppl"], "k*", markersize=14, label="real text")
    axes.set_yscale("log")
    axes.set_xlabel("unigram entropy (nats)")
    axes.set_ylabel("perplexity")


def page_of(title: str, svg: str, results: Sequence[dict]) -> str:
    """Return a self-contained page: the plots, and their numbers as a table."""
    rows = [["setting", "network calls", first_score(results[0])["metric"], "95% interval"]]
    for result in best_first(list(results)):
        score = first_score(result)
        interval = "{:.4g} to {:.4g}".format(*score["interval"]) if score.get("interval") else ""
        rows.append([result["name"], f"{cost(result)}", f"{score['value']:.4g}", interval])
    head, *body = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    table = f"<table><tr>{head.replace('td>', 'th>')}</tr>" + "".join(f"<tr>{line}</tr>" for line in body) + "</table>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>{svg}{table}</html>\n"
    )


def strips(results: Sequence[dict]) -> list[str]:
    """Return lines that draw values and intervals on one scale, the cheapest first; [] for fewer than two intervals."""
    shown = [result for result in results if None not in (first_score(result).get("interval") or [None])]
    if len(shown) < 2:
        return []
    shown.sort(key=cost)
    low = min(first_score(result)["interval"][0] for result in shown)
    high = max(first_score(result)["interval"][1] for result in shown)

    def column(value: float) -> int:
        return round((value - low) / (high - low or 1) * (STRIP_WIDTH - 1))

    rows = []
    for result in shown:
        first, last = map(column, first_score(result)["interval"])
        strip = list(" " * first + "-" * (last + 1 - first) + " " * (STRIP_WIDTH - last - 1))
        strip[column(first_score(result)["value"])] = "o"
        rows.append([result["name"], f"{cost(result)} calls", "".join(strip)])
    scale = f"{low:.4g}".ljust(STRIP_WIDTH - len(f"{high:.4g}")) + f"{high:.4g}"
    return aligned([*rows, ["", first_score(shown[0])["metric"], scale]], numbers=[1])
