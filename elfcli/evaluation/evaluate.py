"""The loop behind `elf eval`, `elf sweep` and online evaluation: for each setting sample, score, write.

`results.jsonl` holds a line per finished setting; its samples are in a file beside it. A stopped evaluation is
continued: settings that already have a line are not sampled again. A line records what it was computed from (step,
weights, data, ...), and a line from anything else is refused. All processes compute; process 0 decides what remains,
and writes.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import xxhash

from elfcli.config.schema import Config
from elfcli.errors import ElfError, InputError
from elfcli.outputs import check_output_file, write_whole
from elfcli.parallel.agree import assert_same_on_all, broadcast_from_first, run_on_all
from elfcli.parallel.hashes import tree_hash
from elfcli.runs.lock import locked
from elfcli.sampling.generate import Options, sample_rows
from elfcli.sampling.made_by import origin_of, split_of
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting, check_sampling_setting
from elfcli.sampling.sources import Sources, real_texts, seen_texts
from elfcli.scoring.report import Texts, low_entropy, reports
from elfcli.scoring.samples_file import read_jsonl, write_samples
from elfcli.scoring.samples_meta import SampleProvenance, write_meta
from elfcli.scoring.text_quality import shortcomings
from elfcli.ui.progress import say

RESULTS_FILE = "results.jsonl"
ANOTHER = "give another --output or --seed, or --overwrite"


@dataclass(frozen=True)
class EvaluationJob:
    """What is evaluated. metrics: the first one ranks the settings. folder: of the samples and results.

    data: where the sources are from, if not from the run's own data.
    """

    model: LoadedModel
    settings: tuple[SamplingSetting, ...]
    sources: Sources
    metrics: tuple[str, ...]
    folder: Path
    options: Options
    data: str | None = None


class ComparisonTexts(NamedTuple):
    """Texts beside the samples: real ones, and training texts where they are at hand."""

    real: list[str]
    seen: set[str] | None


# --- scores -------------------------------------------------------------------------------------------------------


def references_of(rows: list[dict], metric: str) -> list[str]:
    """The references of all rows; InputError for rows without one."""
    if not all("reference" in row for row in rows):
        raise InputError(f"metrics: {metric} compares with references, which free samples do not have; ask for ppl")
    return [row["reference"] for row in rows]


def check_metrics(metrics: Sequence[str], rows: list[dict], config: Config) -> None:
    """InputError where rows like these (not sampled yet) cannot be scored by all of the metrics."""
    for metric in metrics:
        if metric == "ppl":
            from elfcli.scoring.judge import load_judge_tokenizer

            load_judge_tokenizer(config.evaluation.eval_ppl_model, None)
        else:
            references_of(rows, metric)


def score(rows: list[dict], metric: str, config: Config, real: Sequence[str] = ()) -> dict:
    """{"metric", "value", ...} of one metric: bleu, rouge or ppl, which all processes compute together.

    `resampled` holds the value of each bootstrap draw. real: texts that ppl scores too.
    """
    generated = [row["generated"] for row in rows]
    if metric == "ppl":
        from elfcli.scoring.judge import Judge
        from elfcli.scoring.perplexity import perplexity, real_text_score

        settings = config.evaluation
        if not any(text.strip() for text in generated):  # no reason to lose the other settings' scores
            skipped = {"num_samples": 0, "num_skipped_empty": len(generated), "note": "all texts are empty"}
            return {"metric": "ppl", "value": None} | skipped
        size, length = settings.eval_ppl_batch_size, settings.eval_ppl_max_length
        judge = Judge(settings.eval_ppl_model, None, size, length, settings.eval_ppl_dtype)
        found = perplexity(generated, judge)
        beside = real_text_score(tuple(real), judge) if any(map(str.strip, real)) else None
        return found.as_dict() | {"real": beside, "resampled": rounded(found.resampled)}
    references = references_of(rows, metric)
    if metric == "bleu":
        from elfcli.scoring.bleu import corpus_bleu as compute
    else:
        from elfcli.scoring.rouge import rouge as compute

    def by_one() -> dict:
        found = compute(generated, references)
        return found.as_dict() | {"resampled": rounded(found.resampled)}

    return broadcast_from_first(by_one)


def rounded(values) -> list[float | None]:
    """Values for a file, six digits each."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def known_texts(evaluation: EvaluationJob) -> ComparisonTexts:
    model = evaluation.model
    return ComparisonTexts(real_texts(model, evaluation.sources, evaluation.data), seen_texts(model))


def score_samples(
    evaluation: EvaluationJob,
    setting: SamplingSetting,
    samples: list[dict],
    known: ComparisonTexts,
    origin: SampleProvenance,
) -> dict:
    """{"scores", "resampled"} of one setting's samples; the latter by metric. origin: what made the samples."""
    found = [score(samples, metric, evaluation.model.config, known.real) for metric in evaluation.metrics]
    draws = {one["metric"]: one.pop("resampled", []) for one in found}
    for one in found:
        if line := low_entropy(one):
            say(f"{setting.name}: {line}")
    references = [row["reference"] for row in samples] if all("reference" in row for row in samples) else None
    texts = Texts([row["generated"] for row in samples], references, known.real, origin, known.seen)
    return {"scores": reports(found, texts), "resampled": draws}


# --- the loop -----------------------------------------------------------------------------------------------------


@contextmanager
def open_results(evaluation: EvaluationJob, overwrite: bool = False) -> Iterator[list[dict]]:
    """Locks the folder; yields the results that it already holds, none with `overwrite`.

    InputError where the metrics cannot be computed, the folder holds something else, or its results are of another
    evaluation.
    """
    for setting in evaluation.settings:
        check_sampling_setting(evaluation.model.config, setting)
    broadcast_from_first(lambda: check_output_file(evaluation.folder / RESULTS_FILE, overwrite=True))
    broadcast_from_first(lambda: check_folder(evaluation.folder))
    run_on_all(lambda: check_metrics(evaluation.metrics, evaluation.sources.rows, evaluation.model.config))
    with locked(evaluation.folder):
        yield broadcast_from_first(lambda: [] if overwrite else read_results(evaluation))


def check_folder(folder: Path) -> None:
    """InputError where the folder holds anything but results; those that elf 0.1.0 wrote may stay."""
    if (folder / RESULTS_FILE).is_file() or (folder / "results.json").is_file() or not folder.is_dir():
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and holds no {RESULTS_FILE} of elf; give another --output")


def read_results(evaluation: EvaluationJob) -> list[dict]:
    """The folder's results; InputError where one is damaged, or of another evaluation."""
    path = evaluation.folder / RESULTS_FILE
    if not path.is_file() or not path.stat().st_size:
        return []
    results, expected = read_jsonl(path), result_key(evaluation)
    for number, result in enumerate(results, 1):
        found = result.get("of")
        if not isinstance(found, dict) or not {"setting", "scores", "seconds"} <= result.keys():
            raise InputError(f"{path}:{number}: no result of elf; remove the line, or {ANOTHER}")
        for name, value in expected.items():
            if found.get(name) != value:
                what = f"other {name}" if name in ("weights", "data", "settings") else f"{name} {found.get(name)}"
                asked = "" if what.startswith("other") else f", not {value}"
                raise InputError(f"{path}:{number}: a result of {what}{asked}; {ANOTHER}")
    return results


def result_key(evaluation: EvaluationJob) -> dict:
    """What a result depends on besides the setting; weights, data and settings as hashes."""
    model, sources = evaluation.model, evaluation.sources
    data = json.dumps([sources.rows, [[int(token) for token in condition] for condition in sources.conditions]])
    settings = model.config.model_dump_json(
        include={
            "data": {"max_length", "max_input_length", "pad_token"},
            "encoder": True,
            "objective": True,
            "evaluation": {"eval_ppl_model", "eval_ppl_max_length", "clean_up"} | lower_precision(model.config),
        }
    )
    return {
        "step": model.step,
        "seed": evaluation.options.seed,
        "num_samples": len(sources.rows),
        "metrics": list(evaluation.metrics),
        "weights": tree_hash(model.source.params),
        "data": xxhash.xxh3_128_hexdigest(data.encode()),
        "settings": xxhash.xxh3_128_hexdigest(settings.encode()),
    }


def lower_precision(config: Config) -> set[str]:
    """The judge's dtype, where it is not the one of results that do not record it."""
    return {"eval_ppl_dtype"} if config.evaluation.eval_ppl_dtype != "float32" else set()


def pending_settings(evaluation: EvaluationJob, done: list[dict]) -> list[SamplingSetting]:
    """The settings that have no result yet."""
    names = {result.get("name") for result in done}
    return [setting for setting in evaluation.settings if setting.name not in names]


def evaluate(
    evaluation: EvaluationJob, done: list[dict] | None = None, update: Callable[[int], None] = lambda texts: None
) -> list[dict]:
    """Samples and scores the settings without a result in `done`; returns the results of all, in their order.

    A result is {"setting", "name", "of", "seconds", "scores": [...], "resampled": {...}}. update(texts): texts sampled
    by this call.
    """
    model, sources, results, texts = evaluation.model, evaluation.sources, list(done or ()), 0
    path, of = evaluation.folder / RESULTS_FILE, result_key(evaluation)
    asked = {"sampling settings": [setting.name for setting in evaluation.settings]}
    assert_same_on_all("evaluation", of | asked | {"batch_size": evaluation.options.batch_size})
    broadcast_from_first(partial(write_results, path, results))  # also an empty file, which marks the folder as ours
    # The longest of all settings, so that all share one compilation, also after a stop.
    longest = max(setting.num_sampling_steps for setting in evaluation.settings)
    options = replace(evaluation.options, longest=longest)
    todo = pending_settings(evaluation, results)
    known = run_on_all(partial(known_texts, evaluation)) if todo else ComparisonTexts([], None)
    for setting in todo:
        start = time.monotonic()

        def report(count: int, before: int = texts) -> None:
            update(before + count)

        samples = sample_rows(model, sources, setting, options, report)
        texts += len(samples)
        if line := shortcomings([row["generated"] for row in samples]):
            say(f"{setting.name}: {line}")
        result = {"setting": asdict(setting), "name": setting.name, "of": of, "seconds": time.monotonic() - start}
        origin = origin_of(model, setting, options.seed, split_of(model.config, evaluation.data))
        result |= score_samples(evaluation, setting, samples, known, origin)
        file = evaluation.folder / f"{setting.name}.jsonl"
        write_rows(file, samples)
        broadcast_from_first(partial(write_meta, file, origin, overwrite=True))
        results.append(result)
        broadcast_from_first(partial(write_results, path, results))
    return [next(r for r in results if r["name"] == setting.name) for setting in evaluation.settings]


def write_rows(path: Path, samples: list[dict]) -> None:
    """Samples as JSONL, written by process 0; an error is raised in all."""
    broadcast_from_first(partial(write_samples, path, samples, overwrite=True))


def write_results(path: Path, results: list[dict]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(json.dumps(result) + "\n" for result in results))
    except OSError as error:
        raise ElfError(f"{path}: {error.strerror}") from None
