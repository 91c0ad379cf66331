"""`elf sample --trace FILE` and `--watch`: samples with their denoising."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elfcli.sampling.model import LoadedModel
    from elfcli.sampling.sources import Sources


def check_trace(path: Path, overwrite: bool) -> None:
    """Raise InputError if no trace can be written to `path`; checked before the work starts."""
    from importlib.util import find_spec

    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file

    if path.suffix.lower() not in (".html", ".gif"):
        raise InputError(f"--trace {path}: use a name that ends in .html (page) or .gif (animation)")
    if path.suffix.lower() == ".gif" and not (find_spec("PIL") and find_spec("matplotlib")):
        raise InputError(f"--trace {path}: animations need `pip install 'elfcli[plots]'`; a page (.html) does not")
    check_output_file(path, overwrite, "--trace")


def traced_samples(
    loaded: "LoadedModel",
    sources: "Sources",
    setting: Any,
    options: Any,
    path: Path | None,
    watch: bool,
    overwrite: bool,
) -> list[dict]:
    """Return the rows of `sample_rows`. The trace is written to `path` and, with `watch`, shown on the terminal."""
    from elfcli.outputs import write_output
    from elfcli.parallel.agree import assert_same_on_all, broadcast_from_first
    from elfcli.parallel.hashes import digest
    from elfcli.sampling.trace import page_data, traced
    from elfcli.ui.progress import say

    assert_same_on_all("input", {"samples": len(sources.rows), "hash": digest(sources.conditions)})
    with trace_display(len(sources.rows), watch) as update:
        traces = traced(loaded, sources, setting, options, update)

    def write() -> None:
        if path is not None:
            write_output(path, rendered(path, page_data(loaded, setting, traces)), overwrite, "--trace")
            say(f"trace: {path}")

    broadcast_from_first(write)
    return [trace.row for trace in traces]


def rendered(path: Path, data: dict) -> str | bytes:
    """Return the trace in the format of the file name."""
    if path.suffix.lower() == ".gif":
        from elfcli.ui.gif import gif

        return gif(data)
    from elfcli.ui.page import page

    return page("trace.html", data)


@contextmanager
def trace_display(total: int, watch: bool) -> Iterator:
    """Yield `update(traces, done)`, which shows progress.

    With `watch` on a terminal, this is the newest state of a batch's first texts, otherwise a progress line.
    """
    from elfcli.ui.progress import console, is_first_process, on_terminal, progress, say

    if watch and not on_terminal() and is_first_process():
        say("--watch: standard error is not a terminal, so nothing is shown")
    if watch and on_terminal() and is_first_process():
        from rich.live import Live

        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda traces, done: live.update(picture(traces, done, total, console.size.height), refresh=True)
    else:
        with progress("sample", total) as update:
            yield lambda traces, done: update(done)


def picture(traces: Sequence[Any], done: int, total: int, height: int) -> Any:
    """Return the tokens decoded now: bold if the decoder is sure, dim if not, underlined if they just changed."""
    from rich.text import Text

    lines = Text(f"t = {traces[0].times[-1]:.2f}, {done} of {total} texts done\n", style="bold")
    for trace in traces[: max((height - 2) // 4, 1)]:
        if "input" in trace.row:
            lines.append(f"{trace.row['input'][:200]}\n", style="dim")
        before = trace.rows[-2] if len(trace.rows) > 1 else []
        for place, (piece, sure) in enumerate(trace.rows[-1]):
            changed = place >= len(before) or before[place][0] != piece
            weight = "bold" if sure >= 90 else "" if sure >= 50 else "dim"
            lines.append(piece, style=" ".join(filter(None, (weight, "underline" if changed else ""))) or "none")
        lines.append("\n\n")
    return lines
