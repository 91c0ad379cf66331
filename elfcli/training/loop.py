"""The training loop: restore or initialize, step, log, save, evaluate.

With several processes (docs/pods.md) all run this loop; only process 0 writes files and prints.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from elfcli.config.render import to_toml
from elfcli.config.resolve import Resolved
from elfcli.config.schema import Config
from elfcli.data.batches import batches
from elfcli.data.tokenizers import vocab_size
from elfcli.diagnosis.held_out import HeldOut, held_out, held_out_figures
from elfcli.errors import Stopped
from elfcli.evaluation.online import figure_of, online_evaluation, show_samples
from elfcli.models.build import elf_shape
from elfcli.models.elf import ElfShape, abstract_params, num_params
from elfcli.optimizer import learning_rates, make_optimizer
from elfcli.parallel.mesh import make_mesh, process_rows, put, put_batch, replicate, state_shardings
from elfcli.parallel.stop import TIME, requested_anywhere, stop_requests
from elfcli.publishing.mirror import Mirror
from elfcli.runs import checkpoint
from elfcli.runs.folder import record_start
from elfcli.runs.length import RunLength, run_length
from elfcli.runs.state import TrainState
from elfcli.sampling.model import LoadedModel, model_in_training
from elfcli.training.inputs import RunInputs, load_batch
from elfcli.training.log import Log, raise_if_diverged, report_best, report_start
from elfcli.training.step import init_state, make_train_step, step_rates, zero_totals
from elfcli.training.throttle import DispatchLimiter, every
from elfcli.ui.live import running
from elfcli.ui.progress import is_first_process
from elfcli.weights.settings import load_initial_params

FIRST_LOGGED = (1, 2, 5, 10, 20, 50)


def train(
    resolved: Resolved, inputs: RunInputs, folder: Path, *, stop_at: int | None, fallback: bool, new_settings: bool
) -> TrainState:
    """Run the remaining steps, or those up to `stop_at`, and save the last one; return the final state.

    fallback: restore the newest intact checkpoint if the newest is damaged. new_settings: record these settings in the
    run, once its checkpoint is restored with them.
    """
    config = resolved.config
    length = run_length(config, len(inputs.examples))
    stop = min(stop_at or length.total_steps, length.total_steps)
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    mesh = make_mesh(config.training.fsdp_devices, num_params(abstract_params(shape)))
    rates = learning_rates(config.optimization, config.peak_lr, length.warmup_steps, length.total_steps)
    with checkpoint.opened(folder, config.training.keep_checkpoints) as manager:
        teacher = teacher_weights(config, shape, mesh)
        restore = partial(checkpoint.restore_newest, manager, fallback)
        state, start = starting_state(config, shape, mesh, restore, *teacher)
        if is_first_process():
            record_start(folder, start, inputs.tokenizer, to_toml(resolved) if new_settings else None)
        report_start(state, len(inputs.examples), start, length.total_steps)
        if start >= length.total_steps:
            return state
        step = make_train_step(config, shape, inputs.encoder, mesh)
        encoder = replace(inputs.encoder, params=replicate(inputs.encoder.params, mesh))
        log = Log(config, length.epoch_steps, folder, rates, start)
        mirror = Mirror(config.tracking.hub_repo or config.tracking.hf_repo_id, folder)
        sampled = model_in_training(config, shape, encoder, inputs.tokenizer, folder)
        slice_ = held_out(sampled) if length.eval_steps else None
        limiter = DispatchLimiter(start, manager.latest_step)
        view = running("train", length.total_steps, start, length.epoch_steps, log.history)
        with view as update, stop_requests(limiter.notice) as requested:
            request = requested_anywhere(requested, every(config.training.save_every_minutes))
            for batch in limiter.timed(optimizer_batches(config, inputs, mesh, start, stop)):
                state = step(state, encoder.params, batch, step_rates(config, rates[log.done]), *teacher)
                log.count(batch)
                last, detail = log.done == length.total_steps, ""
                if last or is_logged(log.done, config.training.log_every_steps):
                    detail = log.write(state)
                    state = state._replace(totals=replicate(jax.device_get(zero_totals()), mesh))
                    raise_if_diverged(config, state, log.done, manager.latest_step(), inputs)
                saves = (asked := request()) or log.done == stop or is_due(log.done, length.save_steps)
                done = limiter.finished(state.step, wait=bool(saves or detail))
                update(done, detail, **(log.seen(limiter.waiting()) if detail else {}))
                if saves:
                    checkpoint.save(manager, state, replaces=config.training.keep_checkpoints == 1)
                    update(done, saved=log.done)
                mirror.look(manager)
                figures, text = evaluate_if_due(sampled, slice_, state.ema, log.done, length)
                if figures or text:
                    log.evaluation(figures)
                    update(done, held_out=figures, sample=text)
                    checkpoint.keep_best(manager, state, figure_of(config, figures))
                if asked not in (None, TIME) and not last:
                    checkpoint.finish(manager)
                    raise Stopped(f"{asked}: saved at step {log.done}; continue with `elf resume {folder}`")
        checkpoint.finish(manager)
        mirror.finish(manager)
        report_best(folder, log.done)
    return state


def is_logged(done: int, log_every_steps: int) -> bool:
    """Return whether a step is logged: a few early ones, then every `log_every_steps`; never by the clock, so that a
    resumed run logs the same steps."""
    return done in FIRST_LOGGED or done % log_every_steps == 0


def evaluate_if_due(
    model: LoadedModel, slice_: HeldOut | None, ema: dict, done: int, length: RunLength
) -> tuple[dict[str, float], str | None]:
    """Return the figures on held-out text and of an online evaluation if they are due, and the first sample shown."""
    last, settings = done == length.total_steps, model.config.evaluation
    figures: dict[str, float] = {}
    text = None
    due = is_due(done, length.eval_steps) or (last and length.eval_steps > 0)
    if due and slice_ is not None:
        figures = held_out_figures(slice_, ema)
    if due and settings.num_live_samples:
        text = show_samples(model, ema, done)
    if settings.online_eval and (due or last):
        figures |= online_evaluation(model, ema, done)
    return figures, text


def is_due(done: int, every: int) -> bool:
    """Return whether a step is a multiple of `every`; never for 0."""
    return every > 0 and done % every == 0


def starting_state(
    config: Config, shape: ElfShape, mesh: Mesh, restore: Callable, teacher: dict | None = None
) -> tuple[TrainState, int]:
    """Return the state and the steps done of the newest checkpoint, or the initial state if there is none.

    restore(like): returns (state, steps done) or None; it reads a checkpoint of any devices with the shardings of
    `like`, a state of shapes, so that memory never holds a second state. teacher: weights that a student starts from.
    """
    init = partial(init_state, shape, make_optimizer(config.optimization, shape.dtype), config.training.seed)
    like = jax.eval_shape(init)
    where = state_shardings(like, mesh)
    found = restore(jax.tree.map(lambda leaf, place: leaf.update(sharding=place), like, where))
    if found:
        return found
    state = jax.jit(init, out_shardings=where)()
    params = jax.tree.map(jnp.copy, teacher)
    if config.training.init_from:
        params = jax.tree.map(put, load_initial_params(config.training.init_from, shape), where.params)
    if params is not None:
        # The average starts from the given weights as well; the optimizer's state stays initial.
        state = state._replace(params=params, ema=jax.tree.map(jnp.copy, params))
    return state, 0


def teacher_weights(config: Config, shape: ElfShape, mesh: Mesh) -> tuple:
    """Return (the teacher's EMA weights, sharded as the state's,) in distillation; () in ordinary training."""
    settings = config.distillation
    if settings.student_steps is None:
        return ()
    params = load_initial_params(settings.teacher or "", shape, settings.teacher_step)
    return (jax.tree.map(put, params, state_shardings(abstract_params(shape), mesh)),)


def optimizer_batches(config: Config, inputs: RunInputs, mesh: Mesh, start: int, stop: int) -> Iterator[dict]:
    """Yield device batches (A, B, S) of optimizer steps start..stop, A = grad_accum_steps; S is the bucket's length."""
    accumulate = config.optimization.grad_accum_steps
    load = partial(load_batch, config, inputs, mine=process_rows(config.global_batch))
    stream = batches(load, range(start * accumulate, stop * accumulate), config.data.num_workers)
    arrays = (batch for _, batch in stream)
    for group in zip(*[arrays] * accumulate, strict=True):
        yield put_batch({name: np.stack([batch[name] for batch in group]) for name in group[0]}, mesh)
