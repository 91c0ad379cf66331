"""`elf demo`: the whole pipeline on the built-in German-English task, on a laptop's CPU, with no network."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o

SENTENCES = 250


def demo(
    output: Annotated[Path, o.option("--output -o", "DIR", "Folder to make.")] = Path("elf-demo"),
    seed: Annotated[int, o.option("--seed", "S", "Seed of data, training and sampling.", **o.SEEDS)] = 0,
) -> None:
    """Tokenize, train, resume, sample and score a small translation model in a few minutes."""
    import time

    from elfcli.errors import InputError
    from elfcli.outputs import check_writable
    from elfcli.ui.progress import clock, say

    if output.exists():
        raise InputError(f"{output} exists; give another --output")
    check_writable(output)
    start = time.monotonic()

    def stage(number: int, title: str, command: str) -> None:
        say(f"\n[{number}/5] {title}, {clock(time.monotonic() - start)} so far\n      {command}")

    run, data, samples_file = output / "run", output / "data", output / "samples.jsonl"
    stage(1, "make and tokenize German-English sentences", f"elf tokenize --task toy-de-en --seed {seed} -o {data}")
    from elfcli.data.tokenize import Job, tokenize

    summary = tokenize(Job(data, task="toy-de-en", seed=seed))
    counts = {name: split.examples for name, split in summary.splits.items()}
    say(f"{counts['train']} pairs to train on, {counts['validation']} held out, {summary.vocab_size} tokens")

    from elfcli.config.resolve import resolve
    from elfcli.training.start import resume_run, start_run

    flags = {"data_path": str(data.absolute()), "output_dir": str(run), "seed": seed}
    resolved = resolve(task="toy-de-en", flags=flags)
    steps = resolved.config.training.steps or 0
    stop = steps // 2
    stage(2, f"train, and stop after {stop} of {steps} steps", f"elf train --task toy-de-en --data {data} -o {run}")
    start_run(resolved, run, stop_at=stop)
    stage(3, "resume where it stopped", f"elf resume {run}")
    resume_run(run)

    stage(4, f"translate {SENTENCES} held-out sentences", f"elf sample --checkpoint {run} -o {samples_file}")
    from elfcli.evaluation.samples import write_samples

    samples = held_out_samples(run, data, seed)
    write_samples(samples_file, samples)

    stage(5, "score", f"elf eval-bleu {samples_file}")
    from elfcli.cli.sample import show
    from elfcli.evaluation.bleu import corpus_bleu, exact_match
    from elfcli.outputs import write_result

    pair = [row["generated"] for row in samples], [row["reference"] for row in samples]
    bleu, exact, seconds = corpus_bleu(*pair).bleu, exact_match(*pair), time.monotonic() - start
    result = {"bleu": bleu, "exact_match": exact, "sentences": len(samples), "seconds": seconds, "seed": seed}
    write_result(output / "demo.json", result)
    show(samples, 3)
    typer.echo(
        f"BLEU {bleu:.1f}, {exact:.1%} exactly right of {len(samples)} sentences that occur nowhere in training; "
        f"{clock(seconds)} in all. Everything is in {output}."
    )


def held_out_samples(run: Path, data: Path, seed: int) -> list[dict]:
    """The run's translations of held-out sentences, with the first sampling setting of its preset."""
    from elfcli.evaluation.evaluate import sample_rows, sources_of
    from elfcli.evaluation.generate import Options, load_model
    from elfcli.evaluation.ways import settings_of
    from elfcli.ui.progress import progress

    model = load_model(str(run))
    sources = sources_of(model, None, SENTENCES)
    refuse_seen(sources.rows, data)
    setting = settings_of(model.config.sampling)[0]
    with progress("sample", SENTENCES) as update:
        return sample_rows(model, sources, setting, Options(seed, batch_size=125), update)


def refuse_seen(rows: list[dict], data: Path) -> None:
    """ElfError if a sentence to be translated, or its translation, occurs in the training data."""
    from elfcli.data.folder import load_examples
    from elfcli.errors import ElfError

    train = load_examples(data, "train")
    known = {text for i in range(len(train)) for text in (train.texts(i) if train.texts else {}).values()}
    seen = [row["input"] for row in rows if row["input"] in known or row["reference"] in known]
    if seen:
        raise ElfError(f"{data}: {len(seen)} held-out sentences occur in training, the first is {seen[0]!r}")
