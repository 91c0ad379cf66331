"""Sampling a task's evaluation split and scoring it: what `elf sample` and `elf eval` do, callable from Python."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.data.datasets import Examples, load_examples, split_names
from elfcli.errors import ElfError, InputError
from elfcli.evaluation.generate import Model, Setting, encode_conditions, generate
from elfcli.evaluation.samples_file import REFERENCE_KEYS, read_jsonl
from elfcli.training.distributed import by_first, everyone
from elfcli.training.run import check_output_file, write_whole

SOURCE_KEYS = ("input", "source")


def evaluation_examples(config: Config, data: str | None = None) -> Examples:
    """The evaluation split: `data` or eval_data_path, else the validation split of the training data."""
    where = data or config.data.eval_data_path
    if where is None:
        if config.data.data_path is None:
            raise InputError("no evaluation data: give --data DIR or set eval_data_path")
        return load_examples(config.data.data_path, "validation")
    if Path(where).is_dir():
        splits = split_names(where)
        return load_examples(where, "validation" if "validation" in splits else splits[0])
    try:
        return load_examples(where, "validation")
    except InputError:  # a Hub data set with a single split, whatever its name
        return load_examples(where, None)


def first(row: dict, keys: Sequence[str]) -> str | None:
    return next((row[key] for key in keys if key in row), None)


def rows_to_sample(model: Model, data: str | None, count: int) -> tuple[list, list[dict]]:
    """(conditions as token ids, rows with `id`, `input`, `reference`) of the evaluation split's first examples.

    Unconditional models get `count` empty conditions and rows with an `id` alone.
    """
    if not model.config.data.max_input_length:
        return [()] * count, [{"id": i} for i in range(count)]
    examples = evaluation_examples(model.config, data)
    if examples.tokens.condition_input_ids is None:
        raise InputError(f"{examples.path}: {model.name} needs sources, but this data has no condition_input_ids")
    conditions, rows = [], []
    for i in range(min(count, len(examples))):
        tokens, texts = examples.tokens[i], examples.texts(i) if examples.texts else {}

        def text(keys, ids, texts=texts):
            found = first(texts, keys)
            return found if found is not None else model.tokenizer.decode(ids, skip_special_tokens=True)

        conditions.append(tokens["condition_input_ids"])
        source, target = text(SOURCE_KEYS, conditions[-1]), text(REFERENCE_KEYS, tokens["input_ids"])
        rows.append({"id": i, "input": source, "reference": target})
    return conditions, rows


def rows_of_file(model: Model, path: Path) -> tuple[list, list[dict]]:
    """(conditions, rows) of a JSONL file with `input` (and `output` or `reference` where known) on each line."""
    rows = []
    for number, line in enumerate(read_jsonl(path), 1):
        source, target = first(line, SOURCE_KEYS), first(line, REFERENCE_KEYS)
        if not isinstance(source, str):
            raise InputError(f"{path}:{number}: expected a text under 'input', found the keys {', '.join(line)}")
        row = {"id": line.get("id", number - 1), "input": source}
        rows.append(row | ({"reference": target} if target is not None else {}))
    return encode_conditions(model, [row["input"] for row in rows]), rows


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


def write_samples(path: Path, rows: list[dict], overwrite: bool = False) -> None:
    """The samples as JSONL, whole or not at all."""
    check_output_file(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give another --output") from None


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
