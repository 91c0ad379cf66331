"""Before a run: whether its step fits into memory, and how many steps fit into its minutes."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from elfcli.config.resolve import Resolved, changed
from elfcli.config.schema import Config
from elfcli.data.buckets import FULL_LENGTH_SHARE, Buckets
from elfcli.data.tokenizers import vocab_size
from elfcli.diagnosis.held_out import held_out, held_out_figures
from elfcli.errors import InputError
from elfcli.evaluation.online import shown_samples
from elfcli.models.build import elf_shape
from elfcli.models.elf import abstract_params, num_params
from elfcli.parallel.mesh import make_mesh, process_rows, put_batch, replicate, state_shardings
from elfcli.parallel.timing import seconds_per_step, steps_within
from elfcli.recipe.choose import SAVES, SHOWN
from elfcli.runs.length import run_length
from elfcli.runs.state import TrainState
from elfcli.sampling.model import LoadedModel, model_in_training
from elfcli.training.inputs import RunInputs
from elfcli.training.loop import schedule_and_optimizer
from elfcli.training.memory import abstract_batch, abstract_teacher, require_memory, step_bytes
from elfcli.training.step import init_state, make_train_step
from elfcli.ui.progress import clock, say

MIN_TIMED_STEPS = 20
SAVE_SECONDS = 0.5  # of the steps that wait for a checkpoint to be copied


def trial_step(config: Config, inputs: RunInputs):
    """(step, function of the initial state, mesh, shape) as the run will have them, but for the length of schedules."""
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    _, tx = schedule_and_optimizer(config, run_length(config, len(inputs.examples)), shape)
    mesh = make_mesh(config.training.fsdp_devices, num_params(abstract_params(shape)))
    init = partial(init_state, shape, tx, config.training.seed)
    return make_train_step(config, shape, inputs.encoder, tx, mesh), init, mesh, shape


def check_memory(resolved: Resolved, inputs: RunInputs) -> None:
    """InputError where a step of the run does not fit into memory."""

    def needed(batch: int) -> float:
        latents = {"latent_mean": 0.0, "latent_std": 1.0}  # which may still be to be measured
        plain = changed(resolved, "encoder", None, **latents)
        config = changed(plain, "training", None, batch_size=batch, global_batch_size=None).config
        step, init, _, _ = trial_step(config, inputs)
        state = jax.eval_shape(init)
        return step_bytes(step, state, inputs.encoder.params, abstract_batch(config), *abstract_teacher(config, state))

    shape = elf_shape(resolved.config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    require_memory(resolved.config, shape, needed)


class StepRunner:
    """Runs one step more at each call. A step donates its state, so it is given the state that the last one returned.

    step(state, *rest): the jitted or compiled step.
    """

    def __init__(self, step: Callable, state: TrainState, *rest: Any):
        self.step, self.state, self.rest = step, state, rest

    def __call__(self) -> jax.Array:
        self.state = self.step(self.state, *self.rest)
        return self.state.step


class RunTiming(NamedTuple):
    """Seconds of a step, and of all else that a run does."""

    step: float
    rest: float


def measured_pace(config: Config, inputs: RunInputs) -> RunTiming:
    """The pace of a run, measured on a state that is thrown away: the run itself is that of a given number of steps."""
    step, init, mesh, shape = trial_step(config, inputs)
    state = jax.jit(init, out_shardings=state_shardings(jax.eval_shape(init), mesh))()
    encoder = replace(inputs.encoder, params=replicate(inputs.encoder.params, mesh))
    compiling, times = 0.0, dict[int, float]()
    whole, buckets = config.data.max_length, inputs.buckets
    for length in sorted({whole, buckets.lengths[0] if buckets else whole}):
        run_step = StepRunner(step, state, encoder.params, put_batch(first_batch(config, inputs, length), mesh))
        start = time.monotonic()
        jax.block_until_ready(run_step())
        compiling = (time.monotonic() - start) * (len(buckets.lengths) if buckets else 1)
        times[length] = seconds_per_step(run_step)
        state = run_step.state
    showing = 0.0
    if config.training.eval_every_epochs:
        showing = seconds_of_showing(model_in_training(config, shape, encoder, inputs.tokenizer, None), state.ema)
    # The length of the schedules is part of the program, which is therefore compiled again.
    return RunTiming(mean_time(times, buckets), compiling + SHOWN * showing + SAVES * SAVE_SECONDS)


def seconds_of_showing(model: LoadedModel, weights: dict) -> float:
    """Of the held-out figures and shown samples of one evaluation, without compilation."""
    slice_, seconds = held_out(model), 0.0
    for _ in range(2):  # the first time compiles what the run will find compiled
        start = time.monotonic()
        if slice_ is not None:
            held_out_figures(slice_, weights)
        if model.config.evaluation.num_live_samples:
            shown_samples(model, weights, 0)
        seconds = time.monotonic() - start
    return seconds


def first_batch(config: Config, inputs: RunInputs, length: int) -> dict[str, np.ndarray]:
    """The first examples as this process's part of an optimiser step, arrays (A, B / processes, length)."""
    mine = range(config.global_batch)[process_rows(config.global_batch)]
    batch = inputs.collate([inputs.examples.tokens[row] for row in mine], max_length=length)
    return {name: np.stack([array] * config.optimization.grad_accum_steps) for name, array in batch.items()}


def mean_time(times: dict[int, float], buckets: Buckets | None) -> float:
    """The mean over a run's steps; times: of the shortest and of the longest, by length. A step's time grows with its
    length in a straight line."""
    lengths = sorted(times)
    whole = times[lengths[-1]]
    if buckets is None:
        return whole
    bucketed = buckets.shares() @ np.interp(buckets.lengths, lengths, [times[length] for length in lengths])
    return float(FULL_LENGTH_SHARE * whole + (1 - FULL_LENGTH_SHARE) * bucketed)


def steps_that_fit(config: Config, pace: RunTiming, began: float) -> int:
    """Optimiser steps of a run that ends `minutes` after `began` (time.monotonic). InputError for fewer than a few."""
    minutes, passed = config.training.minutes or 0.0, time.monotonic() - began
    steps = steps_within(60 * minutes - passed, pace.step, reserve=pace.rest)
    if steps < MIN_TIMED_STEPS:
        least = (passed + pace.rest + MIN_TIMED_STEPS * pace.step) / 60
        raise InputError(f"--minutes {minutes:g}: too few for a run here, where a step takes {pace.step:.2g} s and the "
                         f"rest {clock(passed + pace.rest)}: give at least {least + 0.1:.1f}")  # fmt: skip
    say(f"from the run's length: a step takes {pace.step:.3g} s here, so {steps:,} steps end after {minutes:g} minutes")
    return steps
