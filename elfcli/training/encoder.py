"""A contextual encoder for a data folder: a small T5 encoder, trained to predict masked tokens (masked.py)."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from elfcli import __version__
from elfcli.config.schema import Config
from elfcli.corpus.working_folder import REPLACED, clear_killed, working_folder
from elfcli.data.batches import TokenTable, batches, load_batch
from elfcli.data.folder import Examples, load_examples, split_names
from elfcli.data.ids import check_ids
from elfcli.data.lengths import fitting_lengths
from elfcli.data.tokenizers import TOKENIZER_FOLDER, eos_id, existing_folder, load_tokenizer, pad_id, vocab_size
from elfcli.errors import ElfError, InputError, Stopped
from elfcli.models.build import compute_dtype
from elfcli.models.elf import num_params
from elfcli.models.t5 import T5Shape
from elfcli.optimizer import lr_schedule
from elfcli.outputs import check_writable
from elfcli.parallel.backend import prepare
from elfcli.parallel.mesh import by_example, make_mesh, replicate, round_up_to_devices
from elfcli.parallel.stop import stop_requests
from elfcli.parallel.timing import seconds_per_step, steps_within
from elfcli.recipe.cooccurrence import token_vectors
from elfcli.runs.folder import LATENTS_FILE
from elfcli.training.masked import (
    OPTIMIZATION,
    OPTIMIZER,
    Task,
    encoder_params,
    initial_params,
    measure_batch,
    pack,
    places,
    train_step,
)
from elfcli.ui.progress import clock, number, progress, say
from elfcli.weights.t5 import save_t5, t5_config

BATCH_TOKENS = 2048
LONGEST = 512  # tokens of an example; longer ones are cut
FEWEST_STEPS = 20
MEASURED = 512  # examples over which accuracies and latents are measured


@dataclass(frozen=True)
class Corpus:
    """Training examples, those that are measured (`measured_on` says of which split), and how to batch them.

    batch_size: examples of a batch. pack: them to its arrays.
    """

    train: Examples
    measured: Examples
    measured_on: str
    tokenizer: Any
    pack: partial
    batch_size: int


def train_encoder(
    data: str | Path,
    output: Path | None = None,
    *,
    steps: int | None = None,
    deadline: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Trains an encoder on a folder of `elf tokenize` and writes it, whole or not at all; returns its folder.

    output: by default `encoder` in the data folder. Either `steps`, or a `deadline` by which the folder is written, in
    seconds of `time.monotonic()`. InputError for wrong input or too little time, Stopped where it was asked to stop.
    """
    if (steps is None) == (deadline is None):
        raise InputError("the encoder is trained for --steps or for --minutes: give one of them")
    if jax.process_count() > 1:
        raise InputError("an encoder is trained by one process: run `elf encoder` on one host alone, then name its "
                         "folder with encoder_model_name on all")  # fmt: skip
    prepare()
    folder = existing_folder(str(data), "Data")
    output = (output or folder / "encoder").expanduser().absolute()
    clear_killed(output)
    check_target(output, overwrite)
    corpus = open_corpus(folder)
    task, mesh = make_task(corpus), make_mesh()
    params = replicate(first_params(task, corpus, seed), mesh)
    shape, longest = task.shape, corpus.pack.keywords["max_length"]
    say(f"encoder of {num_params(params) / 1e6:.2f}M parameters: {shape.num_layers} layers of width {shape.d_model}; "
        f"{len(corpus.train)} examples, {corpus.batch_size} of up to {longest} tokens a step")  # fmt: skip
    if deadline is not None:
        steps = steps_before(deadline, task, corpus, params, mesh)
    assert steps is not None
    params = trained(task, corpus, params, steps, seed)
    found = measured(task, corpus, params, mesh)
    if not np.isfinite(list(found.values())).all():
        raise ElfError("the encoder's latents are not finite after training; nothing was written")
    report = {"vocab_size": shape.vocab_size, "steps": steps, "seed": seed, **found,
              "measured_on": corpus.measured_on, "data_fingerprint": corpus.train.fingerprint,
              "elf_version": __version__}  # fmt: skip
    write_encoder(output, shape, encoder_params(params), corpus.tokenizer, report)
    say(f"{corpus.measured_on}: {found['masked_accuracy']:.1%} of masked tokens predicted, "
        f"{found['token_accuracy']:.2%} of tokens read from their latents; latent_mean {found['latent_mean']:.3g}, "
        f"latent_std {found['latent_std']:.3g}")  # fmt: skip
    return output


def open_corpus(folder: Path) -> Corpus:
    """InputError for a folder without examples or tokenizer, or with ids that the tokenizer does not know."""
    train = load_examples(folder, "train")
    if not (folder / TOKENIZER_FOLDER).is_dir():
        raise InputError(f"{folder}: no {TOKENIZER_FOLDER} in it, the one that made the data: write it again "
                         "with `elf tokenize`")  # fmt: skip
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    validation = "validation" in split_names(str(folder))
    measured = load_examples(folder, "validation") if validation else train
    for examples in (train, measured):
        check_ids(examples, vocab_size(tokenizer))
    columns = {name: column.lengths() for name, column in vars(train.tokens).items() if column is not None}
    max_length, max_input_length = fitting_lengths(columns)
    lengths = sum(columns.values(), np.zeros(len(train), np.int64))
    max_length = min(max_length, LONGEST)
    max_input_length = min(max_input_length, max_length // 2)
    lengths = np.sort(np.minimum(lengths[: 10 * MEASURED], max_length))[::-1]
    filled = 1 + max(row for row, _ in places(lengths, max_length))  # rows of so many examples
    rows = round_up_to_devices(max(min(BATCH_TOKENS // max_length, filled), 1))
    size = min(max(int(0.97 * rows * len(lengths) / filled), rows), len(train))  # few are left out of a batch
    # Padding is the end token, since ELF reads latents of padding only with pad_token=eos.
    packed = partial(
        pack, rows=rows, max_length=max_length, max_input_length=max_input_length, pad_id=eos_id(tokenizer)
    )
    return Corpus(train, measured, "validation" if validation else "train", tokenizer, packed, size)


def check_target(output: Path, overwrite: bool) -> None:
    """InputError where there is something that may not be replaced, or nothing can be written."""
    if output.exists() and not (output / LATENTS_FILE).is_file():
        raise InputError(f"{output} exists and is no encoder of `elf encoder`; give another --output")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists; give another --output, or --overwrite")
    check_writable(output)


def make_task(corpus: Corpus) -> Task:
    """A network whose size follows the data's; on accelerators it computes in bfloat16."""
    columns = corpus.train.tokens.input_ids, corpus.train.tokens.condition_input_ids
    tokens = sum(int(column.lengths().sum()) for column in columns if column is not None)
    width, layers, heads = (128, 4, 4) if tokens > 200_000 else (64, 3, 4)
    shape = T5Shape(
        vocab_size(corpus.tokenizer), width, width // heads, 3 * width, layers, heads, gated=True,
        dtype=compute_dtype(Config()),
    )  # fmt: skip
    known, tokenizer = corpus.tokenizer.get_vocab(), corpus.tokenizer
    others = (known.get("<extra_id_0>"), tokenizer.mask_token_id, tokenizer.unk_token_id, eos_id(tokenizer))
    mask_id = next(token for token in others if token is not None)
    return Task(shape, mask_id)


def first_params(task: Task, corpus: Corpus, seed: int) -> dict:
    """Parameters before training. Tokens start near those that they occur together with, which a short training would
    spend its time on finding out (docs/experiments.md)."""
    tokens, shape = corpus.train.tokens, task.shape
    params = initial_params(task, seed, token_counts(tokens, shape.vocab_size))
    return params | {"embedding": token_vectors(tokens, shape.vocab_size, seed, shape.d_model)}


def token_counts(tokens: TokenTable, vocab_size: int) -> np.ndarray:
    """How often each token is in the first ten million tokens of each chunk, int64 (vocab_size,)."""
    columns = (column for column in (tokens.input_ids, tokens.condition_input_ids) if column is not None)
    chunks = (v[o[0] : o[-1]][: 10**7] for c in columns for v, o in zip(c.values, c.offsets, strict=True))
    return sum((np.bincount(chunk, minlength=vocab_size) for chunk in chunks), np.zeros(vocab_size, np.int64))


def stream(corpus: Corpus, seed: int, steps: int, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """The batches of the first `steps` steps, sharded over all devices."""
    load = partial(load_batch, corpus.train.tokens, batch_size=corpus.batch_size, seed=seed, collate_fn=corpus.pack)
    for _, batch in batches(load, range(steps)):
        yield jax.device_put(batch, by_example(mesh))


def steps_before(deadline: float, task: Task, corpus: Corpus, params: dict, mesh: Mesh) -> int:
    """Steps that can be trained until the deadline, once a step is compiled and timed. InputError where too few can."""
    state, batch = (params, OPTIMIZER.init(params)), next(stream(corpus, 0, 1, mesh))
    each = seconds_per_step(lambda: train_step(task, state, batch, 0.0, jax.random.key(0)), warm=1, count=3)
    start = time.monotonic()
    measured(task, corpus, params, mesh)
    now = time.monotonic()
    reserve = (
        1.2 * (now - start) + 1.0 + 0.05 * max(deadline - now, 0)
    )  # to measure and write it, and for a slower step
    steps = steps_within(deadline - now, each, reserve=reserve)
    if steps < FEWEST_STEPS:
        missing = FEWEST_STEPS * each + reserve - (deadline - now)
        raise InputError(
            f"too little time: a step takes {each:.2g} s, and {steps} steps fit where {FEWEST_STEPS} are the least; "
            f"give about {missing / 60 + 0.1:.1f} --minutes more, or --steps"
        )
    say(f"{each:.2g} s a step: {steps} steps fit into the {clock(deadline - now)} that are left")
    return steps


def trained(task: Task, corpus: Corpus, params: dict, steps: int, seed: int) -> dict:
    """The parameters after so many steps. Stopped where a signal asked for it, ElfError where the loss is lost."""
    mesh, warmup = make_mesh(), min(100, max(steps // 10, 1))
    schedule = lr_schedule(OPTIMIZATION, OPTIMIZATION.lr or 0.0, warmup, steps + 1)
    rates = np.asarray(jax.vmap(schedule)(np.arange(1, steps + 1)))
    state, key, before = (params, OPTIMIZER.init(params)), jax.random.key(seed), None
    with progress("encoder", steps) as update, stop_requests(lambda: "stopping after this step") as requested:
        for step, batch in enumerate(stream(corpus, seed, steps, mesh)):
            state, value = train_step(task, state, batch, rates[step], jax.random.fold_in(key, step))
            if before is not None:  # of the step before, so that the next one is queued while this one runs
                update(step, f"loss {number(float(before))}")
                if not np.isfinite(before):
                    raise ElfError(f"step {step}: the loss is not finite; nothing was written")
            before = value
            if asked := requested():
                raise Stopped(f"{asked}: stopped after step {step + 1} of {steps}; nothing was written")
        update(steps, f"loss {number(float(value))}")
    return state[0]


def measured(task: Task, corpus: Corpus, params: dict, mesh: Mesh) -> dict[str, float]:
    """`masked_accuracy` of masked tokens; of clean latents `token_accuracy`, `latent_mean` and `latent_std`."""
    rows, size = corpus.measured.tokens, corpus.batch_size
    totals: list[dict] = []
    for first in range(0, min(MEASURED, len(rows)), size):
        batch = corpus.pack([rows[i] for i in range(first, min(first + size, len(rows)))])
        key = jax.random.fold_in(jax.random.key(0), first)
        totals.append(jax.device_get(measure_batch(task, params, jax.device_put(batch, by_example(mesh)), key)))
    total = {name: float(sum(float(part[name]) for part in totals)) for name in totals[0]}
    values = total["tokens"] * task.shape.d_model
    mean = total["sum"] / values
    return {
        "masked_accuracy": total["predicted"] / total["masked"],
        "token_accuracy": total["read"] / total["tokens"],
        "latent_mean": mean,
        "latent_std": (total["squares"] / values - mean**2) ** 0.5,
    }


def write_encoder(output: Path, shape: T5Shape, params: dict, tokenizer: Any, report: dict) -> None:
    """Writes the encoder's folder, which is a tokenizer's too, whole or not at all; an old one is then deleted."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(output) as working:
            folder = working / "encoder"
            save_t5(folder, t5_config(shape, pad_id(tokenizer), eos_id(tokenizer)), jax.device_get(params))
            tokenizer.save_pretrained(str(folder))
            (folder / LATENTS_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            if output.exists():
                output.rename(working / REPLACED)
            folder.rename(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error}); give another --output") from None
