"""Pictures of a sweep: quality against network calls, the perplexity's frontier, quality against guidance.

Series differ by marker and dashes as well as by colour. `strips` draws the intervals in a terminal.
"""

from collections.abc import Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from elfcli.errors import InputError
from elfcli.outputs import write_whole
from elfcli.scoring.comparison import best_first, cost
from elfcli.ui.table import aligned

SUFFIXES = (".png", ".svg", ".html")
LINE_STYLES = tuple(zip("osD^vPX*", ("-", "--", "-.", ":") * 2, strict=True))
STRIP_WIDTH = 40
APART = 0.03


def check_plot(path: Path | None) -> None:
    """InputError where such a file cannot be made."""
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise InputError(f"--plot {path}: the name ends in {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install 'elfcli[plots]'") from None


def draw(results: Sequence[dict], path: Path, title: str) -> None:
    """Writes the pictures that the results have data for into one file, whole."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    scored = [result for result in results if result["scores"][0]["value"] is not None]
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
    figure.suptitle(title, fontsize=10)
    if path.suffix == ".html":
        text = StringIO()
        figure.savefig(text, format="svg")
        svg = text.getvalue()
        write_whole(path, page_of(title, svg[svg.index("<svg") :], lines_of(scored)))
        return
    part = path.with_name(f".{path.name}.part{path.suffix}")
    figure.savefig(part, dpi=150)
    part.replace(path)


def label(result: dict, without: str) -> str:
    """What a series has in common: the setting without one of its fields."""
    setting = {name: value for name, value in result["setting"].items() if name != without}
    gamma = f" gamma {setting['sde_gamma']:g}" if setting["sampling_method"] == "sde" else ""
    parts = [f"{setting['sampling_method']}{gamma}", setting["time_schedule"]]
    if without != "num_sampling_steps":
        parts.append(f"{setting['num_sampling_steps']} steps")
    if without != "cfg":
        parts.append(f"CFG {setting['cfg']:g}")
    return ", ".join([*parts, f"w {setting.get('self_cond_scale', setting.get('self_cond_cfg_scale')):g}"])


def series(axes: Any, results: Sequence[dict], without: str, x_of) -> None:
    """A line with error bars for the results that differ in one field alone."""
    by_label: dict[str, list[dict]] = {}
    for result in results:
        by_label.setdefault(label(result, without), []).append(result)
    for number, (name, members) in enumerate(by_label.items()):
        members.sort(key=x_of)
        marker, dashes = LINE_STYLES[number % len(LINE_STYLES)]
        scores = [member["scores"][0] for member in members]
        values = [score["value"] for score in scores]
        ends = [score.get("interval") or [score["value"]] * 2 for score in scores]
        bars = [[value - low for value, (low, _) in zip(values, ends, strict=True)],
                [high - value for value, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
        beside = 1 + APART * number  # so that no bar hides another
        axes.errorbar(
            [x_of(m) * beside for m in members], values, bars, marker=marker, linestyle=dashes, capsize=3, label=name
        )
    axes.set_ylabel(f"{results[0]['scores'][0]['metric']} (95% interval)")
    axes.legend(fontsize=7)


def against_calls(axes: Any, results: Sequence[dict]) -> None:
    series(axes, results, "num_sampling_steps", cost)
    axes.set_xscale("log", base=2)
    ticks = sorted({cost(result) for result in results})
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=7)
    axes.set_xlabel("network calls for a text")


def against_cfg(axes: Any, results: Sequence[dict]) -> None:
    series(axes, results, "cfg", lambda result: result["setting"]["cfg"])
    axes.set_xlabel("CFG scale")


def frontier(axes: Any, results: Sequence[dict]) -> None:
    """Perplexity against entropy: down and to the right is better, towards the real text."""
    for number, result in enumerate(sorted(results, key=cost)):
        score = next(score for score in result["scores"] if score["metric"] == "ppl")
        if score["value"] is None:
            continue
        marker, _ = LINE_STYLES[number % len(LINE_STYLES)]
        axes.plot(score["entropy"], score["value"], marker=marker, linestyle="none", label=result["name"])
        real = (score.get("details") or {}).get("real") or {}
    if real.get("entropy"):
        axes.plot(real["entropy"], real["ppl"], marker="*", markersize=14, color="black", linestyle="none",
                  label="real text")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("unigram entropy (nats)")
    axes.set_ylabel("perplexity")
    axes.legend(fontsize=7)


def page_of(title: str, svg: str, rows: Sequence[Sequence[str]]) -> str:
    """A self-contained page: the pictures, and their numbers as a table."""
    head, *body = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    table = f"<table><tr>{head.replace('td>', 'th>')}</tr>" + "".join(f"<tr>{line}</tr>" for line in body) + "</table>"
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:80rem;padding:0 1rem}"
        "svg{max-width:100%;height:auto}td,th{padding:.2rem .8rem;text-align:left}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style><h1>{escape(title)}</h1>{svg}{table}</html>\n"
    )


def lines_of(results: Sequence[dict]) -> list[list[str]]:
    """The pictures' numbers as rows of a table, the first its head."""
    rows = [["setting", "network calls", results[0]["scores"][0]["metric"], "95% interval"]]
    for result in best_first(list(results)):
        score = result["scores"][0]
        low, high = score.get("interval") or (None, None)
        interval = "" if low is None else f"{low:.4g} to {high:.4g}"
        rows.append([result["name"], f"{cost(result)}", f"{score['value']:.4g}", interval])
    return rows


def strips(results: Sequence[dict]) -> list[str]:
    """The first metric's values and intervals on one scale, a line per setting, the cheapest first; [] for fewer than
    two settings with intervals."""
    known = [r for r in results if r["scores"][0].get("interval") and None not in r["scores"][0]["interval"]]
    if len(known) < 2:
        return []
    known.sort(key=cost)
    low = min(r["scores"][0]["interval"][0] for r in known)
    high = max(r["scores"][0]["interval"][1] for r in known)

    def place(value: float) -> int:
        return round((value - low) / (high - low or 1) * (STRIP_WIDTH - 1))

    rows = []
    for result in known:
        score = result["scores"][0]
        (first, last), strip = map(place, score["interval"]), [" "] * STRIP_WIDTH
        strip[first : last + 1] = "-" * (last + 1 - first)
        strip[place(score["value"])] = "o"
        rows.append([result["name"], f"{cost(result)} calls", "".join(strip)])
    scale = f"{low:.4g}".ljust(STRIP_WIDTH - len(f"{high:.4g}")) + f"{high:.4g}"
    return aligned([*rows, ["", known[0]["scores"][0]["metric"], scale]], numbers=[1])
