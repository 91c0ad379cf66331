"""Before a run: whether its step fits into memory, and how many steps fit into its minutes."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from elfcli.config.resolve import Resolved, changed
from elfcli.config.schema import Config
from elfcli.data.buckets import FULL_LENGTH_SHARE, Buckets
from elfcli.data.tokenizers import vocab_size
from elfcli.diagnosis.held_out import held_out, held_out_figures
from elfcli.errors import InputError
from elfcli.evaluation.online import shown_samples
from elfcli.models.build import elf_shape
from elfcli.models.elf import ElfShape, abstract_params, num_params
from elfcli.optimizer import make_optimizer
from elfcli.parallel.mesh import make_mesh, process_rows, put_batch, replicate, state_shardings
from elfcli.parallel.timing import seconds_per_step, steps_within
from elfcli.recipe.choose import SAVES, SHOWN
from elfcli.runs.state import TrainState
from elfcli.sampling.model import LoadedModel, model_in_training
from elfcli.training.inputs import RunInputs, examples_of
from elfcli.training.memory import abstract_batch, abstract_teacher, step_bytes
from elfcli.training.step import init_state, make_train_step, step_rates
from elfcli.ui.progress import clock, say

MIN_TIMED_STEPS = 20
SAVE_SECONDS = 0.5  # of the steps that wait for a checkpoint to be copied


def trial_run(config: Config, inputs: RunInputs) -> tuple[ElfShape, Mesh, Callable[[], TrainState]]:
    """Return the network's shape, the mesh, and a function of the initial state, as the run will have them."""
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    mesh = make_mesh(config.training.fsdp_devices, num_params(abstract_params(shape)))
    tx = make_optimizer(config.optimization, shape.dtype)
    return shape, mesh, partial(init_state, shape, tx, config.training.seed)


def needed_bytes(resolved: Resolved, inputs: RunInputs, batch: int) -> float:
    """Return what a step of the run needs on one device with this batch over all devices, by the compiler."""
    latents = {"latent_mean": 0.0, "latent_std": 1.0}  # they may still have to be measured
    plain = changed(resolved, "encoder", None, **latents)
    plain = changed(plain, "distillation", None, sigma=1.0)  # likewise
    config = changed(plain, "training", None, batch_size=batch, global_batch_size=None).config
    shape, mesh, init = trial_run(config, inputs)
    state = jax.eval_shape(init)
    step = make_train_step(config, shape, inputs.encoder, mesh)
    arguments = (abstract_batch(config), step_rates(config, 0.0), *abstract_teacher(config, state))
    return step_bytes(step, state, inputs.encoder.params, *arguments)


class StepRunner:
    """Runs one more step at each call. A step donates its state, so it gets the state that the last one returned.

    step(state, *rest): the jitted or compiled step.
    """

    def __init__(self, step: Callable, state: TrainState, *rest: Any):
        self.step, self.state, self.rest = step, state, rest

    def __call__(self) -> jax.Array:
        self.state = self.step(self.state, *self.rest)
        return self.state.step


class RunTiming(NamedTuple):
    """Measured seconds per step, and the fixed overhead of the run."""

    step: float
    overhead: float


def measure_timing(config: Config, inputs: RunInputs) -> RunTiming:
    """Measure a run's timing by the run's own program, on a state that is thrown away."""
    shape, mesh, init = trial_run(config, inputs)
    state = jax.jit(init, out_shardings=state_shardings(jax.eval_shape(init), mesh))()
    step = make_train_step(config, shape, inputs.encoder, mesh)
    encoder = replace(inputs.encoder, params=replicate(inputs.encoder.params, mesh))
    longest, buckets = config.data.max_length, inputs.buckets
    compiling, times = 0.0, dict[int, float]()
    for length in sorted({longest, buckets.lengths[0] if buckets else longest}):
        batch = put_batch(first_batch(config, inputs, length), mesh)
        run_step = StepRunner(step, state, encoder.params, batch, step_rates(config, 0.0))
        start = time.monotonic()
        jax.block_until_ready(run_step())
        compiling = time.monotonic() - start
        times[length] = seconds_per_step(run_step)
        state = run_step.state
    between = len(buckets.lengths) - 2 if buckets else 0  # lengths that are still to be compiled
    showing = 0.0
    if config.training.eval_every_epochs:
        showing = seconds_of_showing(model_in_training(config, shape, encoder, inputs.tokenizer, None), state.ema)
    return RunTiming(mean_time(times, buckets), max(between, 0) * compiling + SHOWN * showing + SAVES * SAVE_SECONDS)


def seconds_of_showing(model: LoadedModel, weights: dict) -> float:
    """Return the seconds that the held-out figures and shown samples of one evaluation take, without compilation."""
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
    """Return the first examples as this process's part of an optimizer step, arrays (A, B / processes, length)."""
    mine = range(config.global_batch)[process_rows(config.global_batch)]
    batch = inputs.collate(examples_of(inputs, mine), max_length=length)
    return {name: np.stack([array] * config.optimization.grad_accum_steps) for name, array in batch.items()}


def mean_time(times: dict[int, float], buckets: Buckets | None) -> float:
    """Return the mean seconds of a run's steps. times: of the shortest and the longest length, by length.

    The time of a step is taken to grow linearly with its length.
    """
    lengths = sorted(times)
    longest = times[lengths[-1]]
    if buckets is None:
        return longest
    bucketed = buckets.shares() @ np.interp(buckets.lengths, lengths, [times[length] for length in lengths])
    return float(FULL_LENGTH_SHARE * longest + (1 - FULL_LENGTH_SHARE) * bucketed)


def steps_that_fit(config: Config, timing: RunTiming, began: float) -> int:
    """Return the optimizer steps of a run that ends `minutes` after `began` (time.monotonic).

    Raises InputError if fewer than MIN_TIMED_STEPS fit.
    """
    minutes = config.training.minutes or 0.0
    setup = time.monotonic() - began + timing.overhead
    steps = steps_within(60 * minutes, timing.step, reserve=setup)
    if steps < MIN_TIMED_STEPS:
        needed = (setup + MIN_TIMED_STEPS * timing.step) / 60
        raise InputError(f"--minutes {minutes:g} is too short: on this machine a step takes {timing.step:.2g} s and "
                         f"setup {clock(setup)}; use at least {needed + 0.1:.1f}")  # fmt: skip
    say(f"from the run's length: a step takes {timing.step:.3g} s, so {steps:,} steps fit into {minutes:g} minutes")
    return steps
