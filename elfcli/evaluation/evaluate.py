"""The loop behind `elf eval`, `elf sweep` and online evaluation: sample, score and write each setting.

`results.jsonl` holds a line per finished setting; its samples are in a file next to it. An interrupted evaluation
resumes: settings that already have a line are not sampled again. A line records what it was computed from (step,
weights, data, ...), and a line from anything else is refused. All processes compute; process 0 decides what remains
and writes.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from elfcli.config.schema import Config
from elfcli.errors import ElfError, InputError
from elfcli.hub_access import is_local
from elfcli.outputs import check_output_file, write_whole
from elfcli.parallel.agree import assert_same_on_all, broadcast_from_first, run_on_all
from elfcli.parallel.hashes import tree_hash
from elfcli.runs.lock import locked
from elfcli.sampling.generate import Options, check_sources, sample_rows
from elfcli.sampling.made_by import origin_of, split_of
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting, check_sampling_setting
from elfcli.sampling.sources import Sources, real_texts, seen_texts
from elfcli.scoring import check_metric_names, metric
from elfcli.scoring.protocol import AUTO, PAPER, check_protocol
from elfcli.scoring.report import low_entropy, reports
from elfcli.scoring.samples_file import read_jsonl, write_meta, write_samples
from elfcli.scoring.score import Metric, ScoreOptions, Texts
from elfcli.scoring.text_quality import shortcomings
from elfcli.ui.progress import say
from elfcli.weights.names import PUBLISHED

RESULTS_FILE = "results.jsonl"
ANOTHER = "choose another --output or --seed, or pass --overwrite"


@dataclass(frozen=True)
class EvaluationJob:
    """What is evaluated. metrics: the first one ranks the settings. folder: for samples and results.

    data: where the sources come from, if not from the run's own data.
    """

    model: LoadedModel
    settings: tuple[SamplingSetting, ...]
    sources: Sources
    metrics: tuple[str, ...]
    folder: Path
    options: Options
    data: str | None = None


# --- scores -------------------------------------------------------------------------------------------------------


def judge_of(config: Config, name: str) -> Any:
    """Return the judge of a metric. The settings name it; if that is the n-gram judge, MAUVE's is the paper's."""
    from elfcli.scoring.judge import NGRAM, Judge

    cfg, data = config.evaluation, config.data
    judge = Judge(cfg.eval_ppl_model, None, cfg.eval_ppl_batch_size, cfg.eval_ppl_max_length, cfg.eval_ppl_dtype)
    if judge.model != NGRAM:  # the data still gives the bigrams that fill gaps
        return replace(judge, data=data.data_path) if name == "gaps" and is_local(data.data_path) else judge
    if name == "mauve":
        return replace(judge, model=Judge.model)
    return replace(judge, tokenizer=data.tokenizer_name, data=data.data_path)


def protocol_of(one: Metric, config: Config) -> str:
    """Return the protocol of a metric: the paper's for its tasks unless another is set, and if there is no other.

    Raises InputError if the metric does not have the one that is set.
    """
    name = config.evaluation.protocol
    if len(one.protocols) == 1 or (name == AUTO and config.data.task in {task for task, _ in PUBLISHED.values()}):
        return PAPER
    return check_protocol(name, one.name, (AUTO, *one.protocols))


def check_metrics(job: EvaluationJob) -> None:
    """Raise InputError if the texts, which are not sampled yet, cannot be scored by all of the job's metrics."""
    rows, config = job.sources.rows, job.model.config
    check_metric_names(job.metrics, "metrics")
    for one in map(metric, job.metrics):
        if one.needs == "references" and not all("reference" in row for row in rows):
            raise InputError(f"metrics: {one.name} compares with references, which free samples do not have; use ppl")
        if one.needs == "gaps" and not all("template" in row for row in rows):
            raise InputError("metrics: gaps scores filled gaps, which models of sources do not have; use bleu or rouge")
        real = len(real_texts(job.model, job.sources, job.data)) if one.needs == "real" else 0
        protocol_of(one, config)
        one.check(len(rows), real, judge_of(config, one.name) if one.uses_judge else None)


def score(texts: Texts, name: str, config: Config) -> dict:
    """Return {"metric", "value", ...} of one metric; all processes call it together.

    `resampled` holds the value of each bootstrap draw.
    """
    one = metric(name)
    options = ScoreOptions(protocol_of(one, config), judge=judge_of(config, one.name) if one.uses_judge else None)
    if one.uses_judge and not any(text.strip() for text in texts.generated):
        # Other settings keep their scores.
        skipped = {"num_samples": 0, "num_skipped_empty": len(texts.generated), "note": "all texts are empty"}
        return {"metric": name, "value": None} | skipped

    def compute() -> dict:
        result = one.compute(texts, options)
        return result.as_dict() | {"resampled": rounded(result.resampled)}

    return compute() if one.uses_judge else broadcast_from_first(compute)


def rounded(values: Iterable[float]) -> list[float | None]:
    """Return values for a file, six digits each; None for values that are not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def score_samples(job: EvaluationJob, setting: SamplingSetting, texts: Texts) -> dict:
    """Return {"scores", "resampled"} of one setting's samples; the latter by metric."""
    scores = [score(texts, name, job.model.config) for name in job.metrics]
    draws = {one["metric"]: one.pop("resampled", []) for one in scores}
    for one in scores:
        if line := low_entropy(one):
            say(f"{setting.name}: {line}")
    return {"scores": reports(scores, texts), "resampled": draws}


# --- the loop -----------------------------------------------------------------------------------------------------


@contextmanager
def open_results(job: EvaluationJob, overwrite: bool = False) -> Iterator[list[dict]]:
    """Lock the folder and yield the results that it already holds, none with `overwrite`.

    Raises InputError if the metrics cannot be computed, if the folder holds something else, or if its results are of
    another job.
    """
    for setting in job.settings:
        check_sampling_setting(job.model.config, setting)
        check_sources(job.model.config, setting, job.sources)
    broadcast_from_first(partial(check_folder, job.folder))
    run_on_all(lambda: check_metrics(job))
    with locked(job.folder):
        yield broadcast_from_first(lambda: [] if overwrite else read_results(job))


def check_folder(folder: Path) -> None:
    """Raise InputError if results cannot be written to the folder, or if it holds anything else."""
    check_output_file(folder / RESULTS_FILE, overwrite=True)
    # elf 0.1.0 wrote results.json
    if (folder / RESULTS_FILE).is_file() or (folder / "results.json").is_file() or not folder.is_dir():
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and does not hold a {RESULTS_FILE} of elf; choose another --output")


def read_results(job: EvaluationJob) -> list[dict]:
    """Return the folder's results. Raises InputError if one is damaged, or of another job."""
    path = job.folder / RESULTS_FILE
    if not path.is_file() or not path.stat().st_size:
        return []
    results, expected = read_jsonl(path), result_key(job)
    for number, result in enumerate(results, 1):
        found = result.get("of")
        if not isinstance(found, dict) or not {"setting", "scores", "seconds"} <= result.keys():
            raise InputError(f"{path}:{number}: not a result of elf; remove the line, or {ANOTHER}")
        for name, value in expected.items():
            if found.get(name) != value:
                hashed = name in ("weights", "data", "settings")
                what = f"other {name}" if hashed else f"{name} {found.get(name)}, not {value}"
                raise InputError(f"{path}:{number}: a result of {what}; {ANOTHER}")
    return results


def result_key(job: EvaluationJob) -> dict:
    """Return what a result depends on besides the setting; weights, data and settings as hashes."""
    model, sources = job.model, job.sources
    data = json.dumps([sources.rows, [[int(token) for token in condition] for condition in sources.conditions]])
    evaluation = {"eval_ppl_model", "eval_ppl_max_length", "clean_up"}
    if model.config.evaluation.eval_ppl_dtype != "float32":  # older results do not record float32
        evaluation.add("eval_ppl_dtype")
    if model.config.evaluation.protocol != AUTO:
        evaluation.add("protocol")
    lengths = {"max_length", "max_input_length", "pad_token"}
    include: dict[str, Any] = {"data": lengths, "encoder": True, "objective": True, "evaluation": evaluation}
    settings = model.config.model_dump_json(include=include)
    return {
        "step": model.step,
        "seed": job.options.seed,
        "num_samples": len(sources.rows),
        "metrics": list(job.metrics),
        "weights": tree_hash(model.source.params),
        "data": xxhash.xxh3_128_hexdigest(data.encode()),
        "settings": xxhash.xxh3_128_hexdigest(settings.encode()),
    }


def pending_settings(job: EvaluationJob, done: list[dict]) -> list[SamplingSetting]:
    """Return the settings that have no result yet."""
    names = {result.get("name") for result in done}
    return [setting for setting in job.settings if setting.name not in names]


def evaluate(
    job: EvaluationJob, done: list[dict] | None = None, update: Callable[[int], None] = lambda texts: None
) -> list[dict]:
    """Sample and score the settings without a result in `done`; return the results of all, in their order.

    A result is {"setting", "name", "of", "seconds", "scores": [...], "resampled": {...}}. update(texts): texts sampled
    by this call.
    """
    model, sources, results, texts = job.model, job.sources, list(done or ()), 0
    path, of = job.folder / RESULTS_FILE, result_key(job)
    arguments = {"sampling settings": [one.name for one in job.settings], "batch_size": job.options.batch_size}
    assert_same_on_all("evaluation", of | arguments)
    broadcast_from_first(partial(write_results, path, results))  # also an empty file, which marks the folder as ours
    # The most steps of all settings, so that all share one compilation, also after an interruption.
    options = replace(job.options, longest=max(setting.num_sampling_steps for setting in job.settings))
    pending = pending_settings(job, results)
    if pending:
        real, seen = run_on_all(lambda: (real_texts(model, sources, job.data), seen_texts(model)))
    for setting in pending:
        start = time.monotonic()

        def report(count: int, before: int = texts) -> None:
            update(before + count)

        samples = sample_rows(model, sources, setting, options, report)
        texts += len(samples)
        generated = [row["generated"] for row in samples]
        references = [row["reference"] for row in samples] if all("reference" in row for row in samples) else None
        if line := shortcomings(generated):
            say(f"{setting.name}: {line}")
        result = {"setting": asdict(setting), "name": setting.name, "of": of, "seconds": time.monotonic() - start}
        origin = origin_of(model, setting, options.seed, split_of(model.config, job.data), sources)
        result |= score_samples(job, setting, Texts(generated, references, real, origin, seen, samples))
        file = job.folder / f"{setting.name}.jsonl"
        write_rows(file, samples)
        broadcast_from_first(partial(write_meta, file, origin, overwrite=True))
        results.append(result)
        broadcast_from_first(partial(write_results, path, results))
    return [next(r for r in results if r["name"] == setting.name) for setting in job.settings]


def write_rows(path: Path, samples: list[dict]) -> None:
    """Write samples as JSONL, in process 0; an error is raised in all."""
    broadcast_from_first(partial(write_samples, path, samples, overwrite=True))


def write_results(path: Path, results: list[dict]) -> None:
    """Write all results, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(json.dumps(result) + "\n" for result in results))
    except OSError as error:
        raise ElfError(f"{path}: {error.strerror}") from None
