"""Sampling a task's evaluation split and scoring it: what `elf sample` and `elf eval` do, callable from Python."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.errors import ElfError, InputError
from elfcli.evaluation.generate import Model, generate
from elfcli.evaluation.samples import write_samples
from elfcli.evaluation.ways import Setting
from elfcli.outputs import write_whole
from elfcli.parallel.agree import by_first, everyone


def sample_rows(
    model: Model,
    conditions: Sequence[Sequence[int]],
    rows: list[dict],
    setting: Setting,
    *,
    seed: int,
    batch_size: int,
    longest: int | None = None,
    update: Callable[[int], None] = lambda done: None,
) -> list[dict]:
    """One row per sample: `id`, `generated`, and `input` and `reference` where there are some."""
    texts = generate(model, conditions, setting, seed=seed, batch_size=batch_size, longest=longest, update=update)
    return [{"id": row["id"], "generated": text} | row for row, text in zip(rows, texts, strict=True)]


def references_of(rows: list[dict], metric: str) -> list[str]:
    """What the metric compares with; InputError for rows without."""
    if not all("reference" in row for row in rows):
        raise InputError(f"metrics: {metric} compares with references, which free samples do not have; ask for ppl")
    return [row["reference"] for row in rows]


def check_metrics(metrics: Sequence[str], rows: list[dict], config: Config) -> None:
    """InputError, before anything is sampled, where rows like these cannot be scored by all of the metrics."""
    for metric in metrics:
        if metric == "ppl":
            from elfcli.evaluation.perplexity import load_judge_tokenizer

            load_judge_tokenizer(config.evaluation.eval_ppl_model, None)
        else:
            references_of(rows, metric)


def score(rows: list[dict], metric: str, config: Config) -> dict:
    """{"metric", "value", ...} of one metric: bleu, rouge or ppl; all processes share the work of ppl."""
    generated = [row["generated"] for row in rows]
    if metric == "ppl":
        from elfcli.evaluation.perplexity import perplexity

        settings = config.evaluation
        if not any(text.strip() for text in generated):  # no reason to lose the other settings' scores
            skipped = {"num_samples": 0, "num_skipped_empty": len(generated), "note": "all texts are empty"}
            return {"metric": "ppl", "value": None} | skipped
        return perplexity(
            generated,
            model=settings.eval_ppl_model,
            batch_size=settings.eval_ppl_batch_size,
            max_length=settings.eval_ppl_max_length,
        ).as_dict()
    references = references_of(rows, metric)
    if metric == "bleu":
        from elfcli.evaluation.bleu import corpus_bleu

        return by_first(lambda: corpus_bleu(generated, references).as_dict())
    from elfcli.evaluation.rouge import rouge

    return by_first(lambda: rouge(generated, references).as_dict())


def evaluate(
    model: Model,
    settings: Sequence[Setting],
    conditions: Sequence[Sequence[int]],
    rows: list[dict],
    *,
    seed: int,
    folder: Path,
    batch_size: int = 64,
    update: Callable[[int], None] = lambda done: None,
) -> list[dict]:
    """Samples with every setting and scores each by the settings' metrics; writes samples and results into `folder`.

    Returns one result per setting: {"setting", "step", "seed", "num_samples", "seconds", "scores": [...]}.
    """
    metrics = model.config.evaluation.metrics
    everyone(partial(check_metrics, metrics, rows, model.config))
    longest, results = max(setting.steps for setting in settings), []
    for index, setting in enumerate(settings):
        start = time.monotonic()

        def report(done: int, before: int = index * len(rows)) -> None:
            update(before + done)

        samples = sample_rows(
            model, conditions, rows, setting, seed=seed, batch_size=batch_size, longest=longest, update=report
        )
        seconds = time.monotonic() - start
        by_first(partial(write_samples, folder / f"{setting.name}.jsonl", samples, overwrite=True))
        results.append(
            {
                "setting": asdict(setting),
                "step": model.step,
                "seed": seed,
                "num_samples": len(samples),
                "seconds": seconds,
                "scores": [score(samples, metric, model.config) for metric in metrics],
            }
        )
        by_first(partial(write_results, folder / "results.json", results))
    return results


def write_results(path: Path, results: list[dict]) -> None:
    """The results so far as JSON, whole or not at all."""
    try:
        write_whole(path, json.dumps(results, indent=1) + "\n")
    except OSError as error:
        raise ElfError(f"{path}: {error.strerror}") from None
