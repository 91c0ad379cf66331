"""Training as one story: open what the run needs, start or continue, step, log, save.

`start_run` makes a new run folder and trains; `resume_run` continues one exactly. Both are what `elf train` and
`elf resume` call, and may be called from Python.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from elfcli.config.check import check_devices
from elfcli.config.render import to_toml
from elfcli.config.resolve import Origin, Resolved, resolve
from elfcli.config.schema import Config
from elfcli.data.batches import batches, collate, steps_per_epoch
from elfcli.data.datasets import (
    Examples,
    check_ids,
    eos_id,
    load_examples,
    load_tokenizer,
    pad_id,
    recorded_tokenizer,
    vocab_size,
)
from elfcli.errors import InputError
from elfcli.hub.encoder import Encoder, load_encoder
from elfcli.models.elf import ElfShape, num_params
from elfcli.training import checkpoint, run
from elfcli.training.backend import prepare
from elfcli.training.mesh import make_mesh, process_rows, put_batch, replicate
from elfcli.training.optimizer import lr_schedule, make_optimizer, peak_lr
from elfcli.training.step import TrainState, init_state, make_train_step, zero_totals
from elfcli.ui.progress import is_first_process, number, progress, say


@dataclass(frozen=True)
class Plan:
    """The run in optimiser steps."""

    epoch_steps: float  # optimiser steps in an epoch
    total_steps: int
    warmup_steps: int
    save_steps: int  # between checkpoints; 0: only at the end


def make_plan(config: Config, num_examples: int) -> Plan:
    training, optimization = config.training, config.optimization
    epoch_steps = steps_per_epoch(num_examples, config.global_batch) / optimization.grad_accum_steps
    total = training.steps or int(training.epochs * epoch_steps)
    if total < 1:
        raise InputError(f"{training.epochs:g} epochs of {epoch_steps:g} steps are less than one step; raise epochs")
    warmup = optimization.warmup_steps
    if warmup < 0:
        warmup = round(optimization.warmup_epochs * epoch_steps)
    save = training.save_every_steps or (max(round(training.save_freq * epoch_steps), 1) if training.save_freq else 0)
    return Plan(epoch_steps, total, warmup, save)


def compute_dtype(config: Config):
    """`auto` is bfloat16 on accelerators, float32 on CPU."""
    name = config.training.compute_dtype
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def elf_shape(config: Config, latent_dim: int, vocab: int) -> ElfShape:
    """The network that the settings describe."""
    network = config.network
    fields = network.model_dump(exclude={"model"})
    self_cond = config.objective.self_cond_prob > 0
    return ElfShape(
        latent_dim, vocab, **fields, self_cond=self_cond, dtype=compute_dtype(config), remat=config.training.remat
    )


@dataclass(frozen=True)
class Inputs:
    """What a run reads: its examples, tokenizer and frozen encoder."""

    examples: Examples
    tokenizer: object
    encoder: Encoder
    collate: partial


def open_inputs(config: Config) -> Inputs:
    """Opens and checks everything that the settings name, before anything is written."""
    if config.data.data_path is None:
        raise InputError(
            "no training data: give --data DIR (written by `elf tokenize`), or a --task that has its own"
        )
    examples = load_examples(config.data.data_path, "train")
    tokenizer = load_tokenizer(config.data.tokenizer_name or recorded_tokenizer(examples))
    vocab = vocab_size(tokenizer)
    check_ids(examples.tokens, vocab)
    together = partial(
        collate,
        max_length=config.data.max_length,
        max_input_length=config.data.max_input_length,
        pad_id=pad_id(tokenizer) if config.data.pad_token == "pad" else eos_id(tokenizer),
    )
    return Inputs(examples, tokenizer, load_encoder(config.encoder, vocab, compute_dtype(config)), together)


def start_run(resolved: Resolved, folder: Path, *, stop_at: int | None = None) -> Path:
    """Trains a new run in `folder`; returns it. InputError before anything is written if the input is wrong.

    stop_at: optimiser step at which to save and stop, as if interrupted; `resume_run` goes on from there.
    """
    prepare()
    config = resolved.config
    if run.is_run(folder):
        run.create_run(folder, "")  # refuses, and says how to go on
    _check_devices(config)
    inputs = open_inputs(config)
    make_plan(config, len(inputs.examples))
    resolved = with_measured_latents(resolved, inputs)
    if is_first_process():
        run.create_run(folder, to_toml(resolved))
        inputs.tokenizer.save_pretrained(str(folder / "tokenizer"))
    train(resolved.config, inputs, folder, stop_at)
    return folder


def resume_run(folder: Path, sets=()) -> Path:
    """Continues the run in `folder` from its newest checkpoint, or from its start where it has none yet."""
    prepare()
    run.require_run(folder)
    resolved = resolve(files=[folder / run.CONFIG_FILE], sets=sets, environ={})
    _check_devices(resolved.config)
    inputs = open_inputs(resolved.config)
    if sets and is_first_process():
        run.write_whole(folder / run.CONFIG_FILE, to_toml(resolved))
    train(resolved.config, inputs, folder)
    return folder


def _check_devices(config: Config) -> None:
    problems = check_devices(config, jax.device_count())
    if problems:
        raise InputError("\n".join(problems))


def with_measured_latents(resolved: Resolved, inputs: Inputs, num_examples: int = 1024) -> Resolved:
    """The settings with `measure` replaced by the mean and standard deviation of the first examples' latents."""
    config = resolved.config
    asked = [name for name in ("latent_mean", "latent_std") if getattr(config.encoder, name) == "measure"]
    if not asked:
        return resolved
    from elfcli.flow.objective import encoder_mask

    tokens, values = inputs.examples.tokens, []
    encode = jax.jit(inputs.encoder.apply)
    size = min(64, len(tokens))
    for first in range(0, min(num_examples, len(tokens)) - size + 1, size):
        batch = inputs.collate([tokens[i] for i in range(first, first + size)])
        no_drop = np.zeros(size, bool)
        mask = encoder_mask(batch["cond_mask"], batch["valid_mask"], no_drop)
        latents = encode(inputs.encoder.params, batch["input_ids"], mask)
        values.append(np.asarray(latents)[batch["valid_mask"]])
    everything = np.concatenate(values)
    measured = {"latent_mean": float(everything.mean()), "latent_std": float(everything.std())}
    measured = {name: measured[name] for name in asked}
    say("measured over " + f"{len(everything)} tokens: " + ", ".join(f"{k} {v:.4g}" for k, v in measured.items()))
    encoder = config.encoder.model_copy(update=measured)
    origins = resolved.origins | {name: Origin("measured") for name in asked}
    return Resolved(config.model_copy(update={"encoder": encoder}), origins, resolved.warnings)


def train(config: Config, inputs: Inputs, folder: Path, stop_at: int | None = None) -> TrainState:
    """Runs the steps that are left, or those up to `stop_at`, and saves the last one; returns the final state."""
    mesh = make_mesh()
    plan = make_plan(config, len(inputs.examples))
    stop = min(stop_at or plan.total_steps, plan.total_steps)
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    schedule = lr_schedule(
        config.optimization, peak_lr(config.optimization, config.global_batch), plan.warmup_steps, plan.total_steps
    )
    tx = make_optimizer(config.optimization, schedule)
    if is_first_process():
        run.record_environment(folder)
    with checkpoint.open_checkpoints(folder, config.training.keep) as manager:
        state = jax.jit(partial(init_state, shape, tx, config.training.seed))()
        state = replicate(state, mesh)
        start = manager.latest_step() or 0
        if start:
            state = checkpoint.restore(manager, state, start)
        if is_first_process():
            run.truncate_metrics(folder, start)
        say(
            f"{num_params(state.params) / 1e6:.2f}M parameters, {len(inputs.examples)} examples, "
            f"step {start} of {plan.total_steps}, {jax.device_count()} {jax.default_backend()} device(s)"
        )
        if start >= plan.total_steps:
            say("nothing is left to do; for more, raise the steps: `elf resume ... --set steps=N`")
            return state
        step = make_train_step(config, shape, inputs.encoder, tx, mesh)
        encoder_params = replicate(inputs.encoder.params, mesh)
        log = Log(config, plan, folder, schedule, start)
        with progress("train", plan.total_steps, start) as update:
            for batch in optimizer_batches(config, inputs, mesh, start, stop):
                state = step(state, encoder_params, batch)
                log.done += 1
                detail = ""
                if log.done % config.training.log_freq == 0 or log.done == plan.total_steps:
                    detail = log.write(state.totals)
                    state = state._replace(totals=replicate(zero_totals(), mesh))
                update(log.done, detail)
                due = plan.save_steps and log.done % plan.save_steps == 0
                if due or log.done == stop:
                    checkpoint.save(manager, state)
    return state


def optimizer_batches(config: Config, inputs: Inputs, mesh: Mesh, start: int, stop: int):
    """Device batches (A, B, S) of optimiser steps start..stop, A = grad_accum_steps."""
    accumulate = config.optimization.grad_accum_steps
    stream = batches(
        inputs.examples.tokens,
        start_step=start * accumulate,
        num_steps=(stop - start) * accumulate,
        batch_size=config.global_batch,
        seed=config.training.seed,
        collate_fn=inputs.collate,
        rows=process_rows(config.global_batch),
        num_workers=config.data.num_workers,
    )
    arrays = (batch for _, batch in stream)
    for group in zip(*[arrays] * accumulate, strict=True):
        yield put_batch({name: np.stack([batch[name] for batch in group]) for name in group[0]}, mesh)


class Log:
    """Writes a line of metrics.jsonl, means over the steps since the last one, and returns it for the terminal."""

    def __init__(self, config: Config, plan: Plan, folder: Path, schedule, start: int):
        self.config, self.plan, self.folder, self.schedule = config, plan, folder, schedule
        self.done = self.last = start
        self.clock = time.monotonic()

    def write(self, totals) -> str:
        means = {name: float(total) / float(count) if count else None for name, (total, count) in
                 jax.device_get(totals).items()}  # fmt: skip
        now, steps = time.monotonic(), self.done - self.last
        config = self.config
        tokens = steps * config.optimization.grad_accum_steps * config.global_batch * config.data.max_length
        row = {
            "step": self.done,
            "epoch": self.done / self.plan.epoch_steps,
            **means,
            "learning_rate": float(self.schedule(self.done - 1)),
            "tokens_per_second": tokens / (now - self.clock),
        }
        self.clock, self.last = now, self.done
        if is_first_process():
            run.append_metrics(self.folder, row)
        shown = ("loss", "denoise_loss", "decode_loss", "learning_rate", "tokens_per_second")
        return "  ".join(f"{name} {number(row[name])}" for name in shown)
