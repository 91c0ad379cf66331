"""Does anything grow while a run goes on? Trains a tiny network for thousands of steps and watches it from outside.

    python benchmarks/soak.py --steps 6000

Prints memory (resident), open files, threads and the median step time of every 500 steps, then what the order of the
data costs at step 10^7 against step 1, then one JSON line with a verdict. Needs no network and no accelerator.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
from kill import TINY, elf, finish

EVERY, WARM = 500, 1000
"""Steps between figures, and steps after which nothing may grow."""
BATCH, LENGTH = 4, 24  # what TINY says
MORE_MEMORY, MORE_FILES, MORE_TIME = 1.03, 2, 1.5
"""What still counts as flat: ratios of memory and step time (two cores are shared with other work), more files."""


def figures(pid: int) -> dict:
    """Of a running process: resident memory in MB, open files, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    resident = int(status["VmRSS"].split()[0]) / 1024
    return {"memory_mb": resident, "files": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(status["Threads"])}


def logged(run: Path) -> list[dict]:
    """The complete lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def watch(process: subprocess.Popen, run: Path) -> list[dict]:
    """Figures of each EVERY steps, with the median seconds per step between them."""
    rows: list[dict] = []
    while process.poll() is None:
        time.sleep(0.2)
        lines = logged(run)
        step = lines[-1]["step"] if lines else 0
        if step < EVERY * (len(rows) + 1):
            continue
        try:
            found = figures(process.pid)
        except (FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
            break
        times = [BATCH * LENGTH / line["tokens_per_second"] for line in lines if step - EVERY < line["step"] <= step]
        rows.append({"step": step, "seconds_per_step": statistics.median(times), **found})
        print(" ".join(f"{name} {value:,.4g}" for name, value in rows[-1].items()), file=sys.stderr)
    return rows


def soak(folder: Path, steps: int, save: int) -> list[dict]:
    finish("tokenize", "--task", "toy-de-en", "-o", folder / "data")
    settings = [*TINY, "log_every_steps=10", f"save_every_steps={save}", f"steps={steps}"]
    sets = [part for setting in settings for part in ("-s", setting)]
    process = elf("train", "--task", "toy-de-en", "--data", folder / "data", *sets, "-o", folder / "run")
    rows = watch(process, folder / "run")
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}: {said[-2000:]}")
    return rows


def order(step: int) -> dict:
    """Median seconds to know one batch's examples at a step, and to read ten batches from there on; peak memory."""
    from elfcli.data.batches import batch_indices, batches

    table = [{"input_ids": row} for row in [np.arange(8)] * 100_000]
    known, read = [], []
    tracemalloc.start()
    for again in range(20):
        start = time.perf_counter()
        batch_indices(step + again, num_examples=len(table), batch_size=64, seed=0)
        known.append(time.perf_counter() - start)
        start = time.perf_counter()
        load = partial(rows_at, table)
        stream = batches(load, range(step, step + 10**6), num_workers=0)
        for _, _batch in zip(range(10), stream, strict=False):
            pass
        read.append(time.perf_counter() - start)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    indices, ten = (1e3 * statistics.median(times) for times in (known, read))
    return {"step": step, "indices_ms": indices, "ten_batches_ms": ten, "peak_kb": peak / 1024}


def rows_at(table: list, step: int) -> int:
    """The number of rows of the batch at a step, after they are read."""
    from elfcli.data.batches import batch_indices

    rows = batch_indices(step, num_examples=len(table), batch_size=64, seed=0)
    return len([table[int(row)] for row in rows])


def verdict(rows: list[dict], first: dict, late: dict) -> dict:
    warm = [row for row in rows if row["step"] >= WARM]
    start, end = warm[: len(warm) // 3 or 1], warm[-(len(warm) // 3 or 1) :]

    def grown(name: str) -> float:
        return statistics.median(row[name] for row in end) / statistics.median(row[name] for row in start)

    return {
        "memory_flat": grown("memory_mb") < MORE_MEMORY,
        "files_flat": max(row["files"] for row in end) <= max(row["files"] for row in start) + MORE_FILES,
        "step_time_flat": grown("seconds_per_step") < MORE_TIME,
        "order_flat": late["ten_batches_ms"] < 1.5 * first["ten_batches_ms"]
        and late["peak_kb"] < 1.5 * first["peak_kb"] + 100,
        "memory_grown": round(grown("memory_mb"), 4),
        "step_time_grown": round(grown("seconds_per_step"), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--save-every", type=int, default=250)
    asked = parser.parse_args()
    if asked.steps < 2 * WARM:
        parser.error(f"--steps: at least {2 * WARM}, so that there is something to compare")
    start = time.monotonic()
    order(0)  # warms up
    first, late = order(1), order(10**7)
    print(json.dumps([first, late]), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="elf-soak-") as name:
        rows = soak(Path(name), asked.steps, asked.save_every)
    result = {"steps": asked.steps, "saves": asked.steps // asked.save_every, **verdict(rows, first, late)}
    print(json.dumps({**result, "rows": rows, "order": [first, late], "seconds": round(time.monotonic() - start)}))


if __name__ == "__main__":
    main()
