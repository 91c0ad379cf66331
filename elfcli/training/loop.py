"""Training as one story: open what the run needs, start or continue, step, log, save.

`start_run` makes a new run folder and trains; `resume_run` continues one exactly. Both are what `elf train` and
`elf resume` call, and may be called from Python. Several processes run it together (docs/pods.md): process 0 writes
and talks, and what is decided from files is decided by it for all.
"""

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
from elfcli.data.batches import batch_indices, batches, steps_per_epoch
from elfcli.data.datasets import vocab_size
from elfcli.errors import ElfError, InputError, Stopped
from elfcli.evaluation.online import online_evaluation
from elfcli.hub.sources import initial_params
from elfcli.models.elf import abstract_params, elf_shape, num_params
from elfcli.training import checkpoint, run
from elfcli.training.backend import prepare
from elfcli.training.distributed import barrier, by_first, everyone, first_goes_ahead, require_same
from elfcli.training.inputs import Inputs, open_inputs, with_measured_latents
from elfcli.training.lock import locked
from elfcli.training.log import Log
from elfcli.training.mesh import make_mesh, process_rows, put, put_batch, replicate, state_shardings
from elfcli.training.mirror import Mirror
from elfcli.training.optimizer import lr_schedule, make_optimizer, peak_lr
from elfcli.training.signals import heard_by_all, stop_requests
from elfcli.training.step import TrainState, init_state, make_train_step, zero_totals
from elfcli.ui.progress import is_first_process, progress, say


@dataclass(frozen=True)
class Plan:
    """The run in optimiser steps."""

    epoch_steps: float  # optimiser steps in an epoch
    total_steps: int
    warmup_steps: int
    save_steps: int  # between checkpoints; 0: only at the end
    eval_steps: int  # between online evaluations; 0: only at the end


def make_plan(config: Config, num_examples: int) -> Plan:
    training, optimization = config.training, config.optimization
    epoch_steps = steps_per_epoch(num_examples, config.global_batch) / optimization.grad_accum_steps
    total = training.steps or int(training.epochs * epoch_steps)
    if total < 1:
        raise InputError(f"{training.epochs:g} epochs of {epoch_steps:g} steps are less than one step; raise epochs")
    warmup = optimization.warmup_steps
    if warmup < 0:
        warmup = round(optimization.warmup_epochs * epoch_steps)
    save = training.save_every_steps or steps_between(training.save_freq, epoch_steps)
    return Plan(epoch_steps, total, warmup, save, steps_between(training.eval_freq, epoch_steps))


def steps_between(epochs: float, epoch_steps: float) -> int:
    """Whole steps in so many epochs, at least one; 0 for 0 epochs."""
    return max(round(epochs * epoch_steps), 1) if epochs else 0


def start_run(resolved: Resolved, folder: Path, *, stop_at: int | None = None) -> Path:
    """Trains a new run in `folder`; returns it. InputError before anything is written if the input is wrong.

    stop_at: optimiser step at which to save and stop, as if interrupted; `resume_run` goes on from there.
    """
    prepare()
    config = resolved.config
    if is_first_process():  # which may have made the folder when another comes to look
        run.check_new(folder)
    inputs = _open(config)
    if config.training.init_from:  # read once more when it is needed; here it refuses what does not fit
        initial_params(config.training.init_from, elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer)))
    resolved = _measured(resolved, inputs)
    with locked(folder):
        if is_first_process():
            run.create_run(folder, to_toml(resolved))
        barrier()
        everyone(partial(_require_shared, folder))
        train(resolved, inputs, folder, stop_at=stop_at)
    return folder


def resume_run(folder: Path, sets=(), *, fallback: bool = False) -> Path:
    """Continues the run in `folder` from its newest checkpoint, or from its start where it has none yet.

    fallback: where the newest is damaged, go on from the newest intact one instead of refusing.
    """
    prepare()
    everyone(partial(_require_shared, folder))
    resolved = resolve(files=[folder / run.CONFIG_FILE], sets=sets, environ={})
    refuse_other_network(resolve(files=[folder / run.CONFIG_FILE], environ={}).config, resolved.config)
    inputs = _open(resolved.config)
    run.recorded_starts(folder)
    run.read_metrics(folder)
    with locked(folder):
        barrier()
        train(resolved, inputs, folder, fallback=fallback, new_settings=bool(sets))
    return folder


def refuse_other_network(before: Config, after: Config) -> None:
    """InputError for settings that a run's checkpoints cannot follow."""
    kept = {"network": set(type(before.network).model_fields) - {"model", "attn_dropout", "proj_dropout"}}
    kept |= {
        "encoder": {"embedding_dim", "embedding_seed", "latent_mean", "latent_std"},
        "optimization": {"optimizer"},
    }
    for section, names in kept.items():
        for name in sorted(names):
            old, new = getattr(getattr(before, section), name), getattr(getattr(after, section), name)
            if old != new:
                raise InputError(
                    f"{name}: a run keeps it, this one has {old}, not {new}; start a new run to change it"
                )


def _require_shared(folder: Path) -> None:
    """InputError where this process does not see the run, which process 0 does."""
    try:
        run.require_run(folder)
    except InputError as error:
        if is_first_process():
            raise
        raise InputError(f"{error}; all processes need the same file system") from None


def _open(config: Config) -> Inputs:
    """The run's inputs, checked to be the same in all processes and to fit their devices."""
    _check_devices(config)
    with first_goes_ahead():
        inputs = open_inputs(config)
    make_plan(config, len(inputs.examples))
    settings = config.model_dump(mode="json", exclude={"tracking"})
    flat = {f"{section}.{name}": value for section, values in settings.items() if section != "sampling"
            for name, value in values.items()}  # fmt: skip
    require_same("settings", flat | {"sampling": settings["sampling"], "number of examples": len(inputs.examples)})
    return inputs


def _measured(resolved: Resolved, inputs: Inputs) -> Resolved:
    """The settings with `measure` replaced, by what process 0 measures."""
    names = [name for name in ("latent_mean", "latent_std") if getattr(resolved.config.encoder, name) == "measure"]
    if not names:
        return resolved

    def measure() -> dict[str, float]:
        encoder = with_measured_latents(resolved, inputs).config.encoder
        return {name: getattr(encoder, name) for name in names}

    encoder = resolved.config.encoder.model_copy(update=by_first(measure))
    origins = resolved.origins | {name: Origin("measured") for name in names}
    return Resolved(resolved.config.model_copy(update={"encoder": encoder}), origins, resolved.warnings)


def _check_devices(config: Config) -> None:
    problems = check_devices(config, jax.device_count())
    if problems:
        raise InputError("\n".join(problems))


def train(
    resolved: Resolved,
    inputs: Inputs,
    folder: Path,
    *,
    stop_at: int | None = None,
    fallback: bool = False,
    new_settings: bool = False,
) -> TrainState:
    """Runs the steps that are left, or those up to `stop_at`, and saves the last one; returns the final state.

    new_settings: the run's settings are replaced by these, once its checkpoint is found to fit them.
    """
    config = resolved.config
    plan = make_plan(config, len(inputs.examples))
    stop = min(stop_at or plan.total_steps, plan.total_steps)
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    schedule = lr_schedule(
        config.optimization, peak_lr(config.optimization, config.global_batch), plan.warmup_steps, plan.total_steps
    )
    tx = make_optimizer(config.optimization, schedule, shape.dtype)
    mesh = make_mesh(config.training.fsdp, num_params(abstract_params(shape)))
    with checkpoint.opened(folder, config.training.keep) as manager:
        state, start = starting_state(config, shape, tx, manager, mesh, fallback)
        if is_first_process():
            if new_settings:
                run.write_whole(folder / run.CONFIG_FILE, to_toml(resolved))
            run.record_environment(folder)
            run.truncate_metrics(folder, start)
            run.save_tokenizer(inputs.tokenizer, folder)
        say(
            f"{num_params(state.params) / 1e6:.2f}M parameters, {len(inputs.examples)} examples, "
            f"step {start} of {plan.total_steps}, {jax.device_count()} {jax.default_backend()} device(s)"
        )
        if start >= plan.total_steps:
            say("nothing is left to do; for more, raise the steps: `elf resume ... --set steps=N`")
            return state
        step = make_train_step(config, shape, inputs.encoder, tx, mesh)
        encoder_params = replicate(inputs.encoder.params, mesh)
        log = Log(config, plan.epoch_steps, folder, schedule, start)
        mirror = Mirror(config.tracking.hub_repo or config.tracking.hf_repo_id, folder)
        with progress("train", plan.total_steps, start) as update, stop_requests() as requested:
            stop_requested = heard_by_all(requested)
            for batch in optimizer_batches(config, inputs, mesh, start, stop):
                state = step(state, encoder_params, batch)
                log.done += 1
                last, detail = log.done == plan.total_steps, ""
                if last or log.done % config.training.log_freq == 0:
                    detail = log.write(state.totals)
                    state = state._replace(totals=replicate(jax.device_get(zero_totals()), mesh))
                    stop_if_lost(config, state, log.done, manager.latest_step(), len(inputs.examples))
                update(log.done, detail)
                asked = stop_requested()
                if asked or log.done == stop or is_due(log.done, plan.save_steps):
                    checkpoint.save(manager, state)
                mirror.look(manager)
                if config.evaluation.online_eval and (last or is_due(log.done, plan.eval_steps)):
                    figures = online_evaluation(config, inputs, shape, state.ema, log.done, folder)
                    log.track(log.done, figures)
                if asked and not last:
                    checkpoint.finish(manager)
                    raise Stopped(f"{asked}: saved at step {log.done}; go on with `elf resume {folder}`")
        checkpoint.finish(manager)
        mirror.finish(manager)
    return state


def stop_if_lost(config: Config, state: TrainState, step: int, saved: int | None, num_examples: int) -> None:
    """ElfError after too many steps in a row whose loss or gradients were not finite."""
    lost = int(state.skipped_in_a_row)
    if lost < config.training.max_skipped_steps:
        return
    micro = (step - 1) * config.optimization.grad_accum_steps
    rows = batch_indices(
        micro, num_examples=num_examples, batch_size=config.global_batch, seed=config.training.seed
    ).tolist()
    good = f"the last checkpoint is step {saved}" if saved else "nothing was saved yet"
    raise ElfError(
        f"loss or gradients were not finite for {lost} steps in a row, up to step {step} (its first batch holds the "
        f"examples {rows}); {good}; lower lr, or look at those examples"
    )


def is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def starting_state(config: Config, shape, tx, manager, mesh: Mesh, fallback: bool) -> tuple[TrainState, int]:
    """(state, steps done): the newest checkpoint, or the state before the first step where there is none.

    A checkpoint is read into the layout of this mesh, whatever devices wrote it.
    """
    init = partial(init_state, shape, tx, config.training.seed)
    where = state_shardings(jax.eval_shape(init), mesh)
    state = jax.jit(init, out_shardings=where)()
    found = checkpoint.restore_newest(manager, state, fallback)
    if found:
        return found
    if config.training.init_from:
        # Weights and their average start from the same values, as drawn ones do; the optimiser starts fresh.
        params = initial_params(config.training.init_from, shape)
        params = jax.tree.map(put, params, where.params)
        state = state._replace(params=params, ema=jax.tree.map(jnp.copy, params))
    return state, 0


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
