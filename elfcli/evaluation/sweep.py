"""Many ways to sample, each sampled and scored: one line of `results.jsonl` per finished setting, and its samples.

A sweep that was stopped goes on: settings whose line is there are not sampled again. A line says what it is of (step,
weights, data, ...), and lines of anything else are refused. Of several processes all compute; process 0 decides what
is left, and writes.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xxhash

from elfcli.errors import ElfError, InputError
from elfcli.evaluation.evaluate import sample_rows, score
from elfcli.evaluation.generate import Model
from elfcli.evaluation.samples import read_jsonl, write_samples
from elfcli.evaluation.ways import Setting
from elfcli.outputs import write_whole
from elfcli.parallel.agree import by_first, require_same

RESULTS_FILE = "results.jsonl"
LOWER_IS_BETTER = ("ppl",)
ANOTHER = "give another --output or --seed, or --overwrite"


@dataclass(frozen=True)
class Sweep:
    """What is swept. conditions and rows: as `rows_to_sample` gives them. metrics: the first one ranks."""

    model: Model
    settings: tuple[Setting, ...]
    conditions: Sequence[Sequence[int]]
    rows: list[dict]
    metrics: tuple[str, ...]
    folder: Path
    seed: int = 0
    batch_size: int = 64


def check_folder(folder: Path) -> None:
    """InputError where the folder holds something else than a sweep."""
    if (folder / RESULTS_FILE).is_file() or not folder.is_dir():
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and holds no {RESULTS_FILE} of `elf sweep`; give another --output")


def made_of(sweep: Sweep) -> dict:
    """What decides a result besides the setting; long things as their hash."""
    config, weights = sweep.model.config, xxhash.xxh3_128()
    for path, leaf in jax.tree_util.tree_leaves_with_path(sweep.model.params):
        weights.update(jax.tree_util.keystr(path).encode())
        weights.update(np.asarray(leaf).tobytes())
    data = json.dumps([sweep.rows, [[int(token) for token in condition] for condition in sweep.conditions]])
    settings = config.model_dump_json(
        include={
            "data": {"max_length", "max_input_length", "pad_token"},
            "encoder": True,
            "objective": True,
            "evaluation": {"eval_ppl_model", "eval_ppl_max_length"},
        }
    )
    return {
        "step": sweep.model.step,
        "seed": sweep.seed,
        "num_samples": len(sweep.rows),
        "metrics": list(sweep.metrics),
        "weights": weights.hexdigest(),
        "data": xxhash.xxh3_128_hexdigest(data.encode()),
        "settings": xxhash.xxh3_128_hexdigest(settings.encode()),
    }


def finished(sweep: Sweep) -> list[dict]:
    """The lines of the folder's results; InputError where they are of something else, or are damaged."""
    path = sweep.folder / RESULTS_FILE
    if not path.is_file() or not path.stat().st_size:
        return []
    results, expected = read_jsonl(path), made_of(sweep)
    for number, result in enumerate(results, 1):
        found = result.get("of")
        if not isinstance(found, dict) or not {"setting", "scores", "seconds"} <= result.keys():
            raise InputError(f"{path}:{number}: no result of `elf sweep`; remove the line, or {ANOTHER}")
        for name, value in expected.items():
            if found.get(name) != value:
                what = f"other {name}" if name in ("weights", "data", "settings") else f"{name} {found.get(name)}"
                asked = "" if what.startswith("other") else f", not {value}"
                raise InputError(f"{path}:{number}: a result of {what}{asked}; {ANOTHER}")
    return results


def run_sweep(sweep: Sweep, done: list[dict], update: Callable[[int], None] = lambda texts: None) -> list[dict]:
    """Samples and scores the settings that are not `done`; returns the results of all settings, in their order.

    A result is {"setting", "name", "of", "seconds", "scores": [...]}. update(texts) counts those of this call.
    """
    path, of, results, texts = sweep.folder / RESULTS_FILE, made_of(sweep), list(done), 0
    asked = {"sampling settings": [setting.name for setting in sweep.settings], "batch_size": sweep.batch_size}
    require_same("sweep", of | asked)
    by_first(partial(write_results, path, results))  # empty at first: says whose folder it is
    longest = max(setting.steps for setting in sweep.settings)  # of all, so that what is left compiles the same
    for setting in left(sweep, done):
        start = time.monotonic()

        def report(count: int, before: int = texts) -> None:
            update(before + count)

        samples = sample_rows(
            sweep.model, sweep.conditions, sweep.rows, setting,
            seed=sweep.seed, batch_size=sweep.batch_size, longest=longest, update=report,
        )  # fmt: skip
        texts += len(samples)
        result = {"setting": asdict(setting), "name": setting.name, "of": of, "seconds": time.monotonic() - start}
        result["scores"] = [score(samples, metric, sweep.model.config) for metric in sweep.metrics]
        by_first(partial(write_samples, sweep.folder / f"{setting.name}.jsonl", samples, overwrite=True))
        results.append(result)
        by_first(partial(write_results, path, results))
    return [next(r for r in results if r["setting"] == asdict(setting)) for setting in sweep.settings]


def left(sweep: Sweep, done: list[dict]) -> list[Setting]:
    """The settings that have no result yet."""
    return [setting for setting in sweep.settings if asdict(setting) not in [result["setting"] for result in done]]


def write_results(path: Path, results: list[dict]) -> None:
    try:
        write_whole(path, "".join(json.dumps(result) + "\n" for result in results))
    except OSError as error:
        raise ElfError(f"{path}: {error.strerror}") from None


def best_first(results: list[dict]) -> list[dict]:
    """By the first metric, those without a value last; equal ones stay in their order."""
    sign = 1 if results[0]["scores"][0]["metric"] in LOWER_IS_BETTER else -1
    values = [result["scores"][0]["value"] for result in results]
    order = sorted(range(len(results)), key=lambda i: (values[i] is None, sign * (values[i] or 0)))
    return [results[i] for i in order]
