"""`elf demo`: the whole pipeline on the built-in German-English task, on a laptop's CPU, without network."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from elfcli.cli import options as o

SENTENCES = 250
ROUNDS, ROUND_STEPS, TEACHER_STEPS = "2,1", 40, 64
GAP_SETTINGS = ["steps=1000", "batch_size=64", "buckets=[]", "gaps_after=0.0"]  # few steps: gaps from the start


def demo(
    output: Annotated[Path, o.option("--output -o", "DIR", "Folder to create.")] = Path("elf-demo"),
    seed: Annotated[int, o.option("--seed", "S", "Seed of data, training and sampling.", **o.SEEDS)] = 0,
    distill: Annotated[bool, o.option("--distill", "", "Also distill the model (two more minutes).")] = False,
    gaps: Annotated[bool, o.option("--gaps", "", "Also train a model that fills gaps (some more minutes).")] = False,
) -> None:
    """Tokenize, train, resume, sample and score a small translation model in a few minutes.

    Example: elf demo --output elf-demo
    """
    import time

    from elfcli.errors import InputError
    from elfcli.outputs import check_writable
    from elfcli.ui.progress import clock, say

    if output.exists():
        raise InputError(f"{output} exists; choose another --output")
    check_writable(output)
    start = time.monotonic()

    def stage(number: int, title: str, command: str) -> None:
        done, total = clock(time.monotonic() - start), 5 + 2 * distill + 2 * gaps
        say(f"\n[{number}/{total}] {title}, {done} so far\n      {command}")

    run, data, samples_file = output / "run", output / "data", output / "samples.jsonl"
    stage(1, "generate and tokenize German-English sentences", f"elf tokenize --task toy-de-en --seed {seed} -o {data}")
    from elfcli.corpus.tokenize import Job, tokenize

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

    stage(4, f"translate {SENTENCES} held-out sentences", f"elf sample {run} -o {samples_file}")
    from elfcli.scoring.samples_file import write_samples

    samples = held_out_samples(run, seed)
    refuse_seen(samples, data)
    write_samples(samples_file, samples)

    stage(5, "score", f"elf eval-bleu {samples_file}")
    show_scores(output, samples, time.monotonic() - start, seed)
    if distill:
        show_students(output, seed, stage)
    if gaps:
        show_gaps(output, seed, stage, 6 + 2 * distill)
    if distill or gaps:
        say(f"{clock(time.monotonic() - start)} in total")


def show_scores(output: Path, samples: list[dict], seconds: float, seed: int) -> None:
    """Print the scores and some samples, and write the scores to demo.json."""
    from elfcli.cli.output import show_samples
    from elfcli.outputs import write_result
    from elfcli.scoring.bleu import corpus_bleu, exact_match
    from elfcli.ui.progress import clock

    pair = pair_of(samples)
    bleu, exact = corpus_bleu(*pair).bleu, exact_match(*pair)
    result = {"bleu": bleu, "exact_match": exact, "sentences": len(samples), "seconds": seconds, "seed": seed}
    write_result(output / "demo.json", result)
    show_samples(samples, 3)
    typer.echo(
        f"BLEU {bleu:.1f}, {exact:.1%} exact matches of {len(samples)} sentences that do not occur in training; "
        f"{clock(seconds)} in total. Everything is in {output}."
    )


def held_out_samples(run: Path, seed: int, steps: int | None = None) -> list[dict]:
    """Return the run's translations of held-out sentences, by the first setting of its preset, or with other steps."""
    from dataclasses import replace

    from elfcli.sampling.generate import Options, sample_rows
    from elfcli.sampling.model import load_model
    from elfcli.sampling.settings import settings_of
    from elfcli.sampling.sources import sources_of
    from elfcli.ui.progress import progress

    model = load_model(str(run))
    sources = sources_of(model, None, SENTENCES)
    setting = settings_of(model.config.sampling)[0]
    setting = replace(setting, num_sampling_steps=steps or setting.num_sampling_steps)
    with progress("sample", SENTENCES) as update:
        options = Options(seed, batch_size=125, longest=TEACHER_STEPS if steps else None)  # one compilation for all
        return sample_rows(model, sources, setting, options, update)


def pair_of(rows: list[dict]) -> tuple[list[str], list[str]]:
    """Return generated texts and references."""
    return [row["generated"] for row in rows], [row["reference"] for row in rows]


def show_students(output: Path, seed: int, stage: Callable[[int, str, str], None]) -> None:
    """Distill the run and compare teacher and students."""
    from elfcli.training.distill import start_rounds
    from elfcli.weights.open import open_source
    from elfcli.weights.settings import resolved_of

    run, students = output / "run", output / "students"
    command = f"elf distill {run} -o {students} --rounds {ROUNDS} --steps {ROUND_STEPS}"
    stage(6, "distill it into students of few steps", command)
    source = open_source(run)
    start_rounds(source, resolved_of(source, sets=[f"rounds=[{ROUNDS}]", f"round_steps={ROUND_STEPS}"]), students)
    stage(7, "translate the same sentences", f"elf sample {students}@round-2")
    compare(run, students, seed)


def show_gaps(output: Path, seed: int, stage: Callable[[int, str, str], None], number: int) -> None:
    """Train on English sentences with gaps, fill those of held-out ones, and count the sentences of the grammar."""
    from elfcli.cli.output import show_samples
    from elfcli.config.resolve import resolve
    from elfcli.config.schema import GAP_SHARES
    from elfcli.corpus.tokenize import Job, tokenize
    from elfcli.corpus.toy import is_sentence
    from elfcli.outputs import write_result
    from elfcli.sampling.gaps import gap_sources
    from elfcli.sampling.generate import Options, sample_rows
    from elfcli.sampling.model import load_model
    from elfcli.sampling.settings import for_templates, settings_of
    from elfcli.scoring.samples_file import write_samples
    from elfcli.training.start import start_run

    data, run, file = output / "text", output / "gaps", output / "filled.jsonl"
    command = f"elf train --data {data} --gaps -o {run} -s {' -s '.join(GAP_SETTINGS)}"
    stage(number, "train a model that continues and fills English sentences", command)
    tokenize(Job(data, task="toy-text", seed=seed))
    flags = {"data_path": str(data.absolute()), "output_dir": str(run), "seed": seed, "gaps": GAP_SHARES}
    start_run(resolve(flags=flags, sets=[*GAP_SETTINGS, "num_live_samples=0", "eval_every_epochs=0"]), run)
    stage(number + 1, f"fill gaps in {SENTENCES} held-out sentences", f"elf eval {run} -n {SENTENCES}")
    model = load_model(str(run))
    sources = gap_sources(model, None, SENTENCES)
    rows = sample_rows(model, sources, settings_of(for_templates(model.config.sampling))[0], Options(seed, 125))
    write_samples(file, rows)
    show_samples(rows, 3)
    kinds = dict.fromkeys(row["kind"] for row in rows)
    shares = {kind: fmean(is_sentence(row["generated"]) for row in rows if row["kind"] == kind) for kind in kinds}
    write_result(output / "gaps.json", {"seed": seed, "sentences": len(rows), "of_the_grammar": shares})
    typer.echo("Sentences of the grammar after filling: "
               + ", ".join(f"{share:.1%} ({kind})" for kind, share in shares.items()))  # fmt: skip


def compare(run: Path, students: Path, seed: int) -> None:
    """Print the scores of teacher and students, and write them to students/demo.json."""
    from elfcli.outputs import write_result
    from elfcli.scoring.bleu import corpus_bleu
    from elfcli.scoring.bootstrap import interval
    from elfcli.ui.table import aligned

    few = [int(steps) for steps in ROUNDS.split(",")]
    models = [("teacher", run, steps) for steps in (TEACHER_STEPS, *few)]
    models += [("student", students / f"round-{steps}", steps) for steps in few]
    found, lines = [], [["", "steps", "BLEU", "95% interval"]]
    for name, folder, steps in models:
        score = corpus_bleu(*pair_of(held_out_samples(folder, seed, steps)))
        low, high = interval(score.resampled) or (0.0, 0.0)
        found.append({"model": name, "steps": steps, "bleu": score.bleu, "interval": [low, high]})
        lines.append([name, str(steps), f"{score.bleu:.1f}", f"{low:.1f} to {high:.1f}"])
    write_result(students / "demo.json", found)
    typer.echo("\n".join(aligned(lines, numbers=(1, 2))))


def refuse_seen(rows: list[dict], data: Path) -> None:
    """Raise ElfError if a translated sentence, or its translation, occurs in the training data."""
    from elfcli.data.folder import load_examples
    from elfcli.errors import ElfError

    train = load_examples(data, "train")
    known = {text for i in range(len(train)) for text in (train.texts(i) if train.texts else {}).values()}
    seen = [row["input"] for row in rows if row["input"] in known or row["reference"] in known]
    if seen:
        raise ElfError(f"{data}: {len(seen)} held-out sentences occur in training, the first is {seen[0]!r}")
