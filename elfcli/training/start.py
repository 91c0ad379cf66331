"""Starts and resumes runs: check the inputs, open the folder, train. `elf train` and `elf resume` call it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from elfcli.config.check import check_devices
from elfcli.config.render import to_toml
from elfcli.config.resolve import Resolved, changed, resolve_run
from elfcli.config.schema import Config
from elfcli.data.folder import Examples
from elfcli.data.ids import check_token_ids
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import InputError
from elfcli.models.build import arithmetic, elf_shape
from elfcli.parallel.agree import assert_same_on_all, barrier, broadcast_from_first, first_process_first, run_on_all
from elfcli.parallel.backend import prepare
from elfcli.recipe.apply import complete, this_machine
from elfcli.recipe.card import derived_report
from elfcli.recipe.choose import FROM_MACHINE, from_length, with_measured_steps
from elfcli.recipe.encoder import require_same_vocabulary
from elfcli.recipe.explain import report_data, report_settings
from elfcli.runs.examples import open_examples
from elfcli.runs.folder import (
    CONFIG_FILE,
    check_new,
    create_run,
    keep_encoder,
    read_metrics,
    record_data,
    recorded_starts,
    require_run,
    require_same_data,
)
from elfcli.runs.length import run_length
from elfcli.runs.lock import locked
from elfcli.training.inputs import RunInputs, buckets_of, measured_latents, measured_sigma, open_inputs, tokenizer_of
from elfcli.training.loop import train
from elfcli.training.memory import fitting_division, memory_errors, require_memory
from elfcli.training.step import device_group
from elfcli.training.timing import measure_timing, needed_bytes, steps_that_fit
from elfcli.ui.progress import is_first_process, say
from elfcli.weights.settings import load_initial_params
from elfcli.weights.source import with_own_encoder

FIXED = {
    "network": (
        *("depth", "hidden_size", "num_heads", "bottleneck_dim", "num_time_tokens", "num_self_cond_cfg_tokens"),
        *("num_model_mode_tokens", "text_position"),
    ),
    "encoder": ("embedding_dim", "embedding_seed", "latent_mean", "latent_std"),
    "optimization": ("optimizer",),
    "distillation": ("distill_objective", "sigma"),
}
"""Settings that a run cannot change: the arrays of its checkpoints or what its loss measures depend on them."""


def start_run(
    resolved: Resolved,
    folder: Path,
    *,
    stop_at: int | None = None,
    began: float | None = None,
    before: Callable[[], None] = lambda: None,
) -> Path:
    """Train a new run in `folder`; return it. Raises InputError, before anything is written, if the input is wrong.

    before: called once all input is checked, just before the run is created. stop_at: optimizer step at which to save
    and stop; `resume_run` continues there. began: time.monotonic() from which the settings' minutes count (default:
    now).
    """
    began = time.monotonic() if began is None else began
    prepare()
    if is_first_process():  # the others may look after it has created the folder
        check_new(folder)
    completed = complete(resolved)
    resolved, examples = completed.resolved, completed.examples
    if completed.uses_recipe:
        report_data(resolved, examples)
    inputs = open_inputs_on_all(resolved.config, examples)
    source = (examples.metadata or {}).get("tokenizer_source")
    encoder = resolved.config.encoder.encoder_model_name
    broadcast_from_first(lambda: require_same_vocabulary(encoder, inputs.tokenizer, source))
    resolved = with_fitting_batch(resolved, inputs)
    inputs = replace(inputs, buckets=buckets_of(resolved.config, examples))
    resolved = with_measurements(resolved, inputs)
    if resolved.config.timed:
        timing = measure_timing(resolved.config, inputs)
        steps = broadcast_from_first(partial(steps_that_fit, resolved.config, timing, began))
        resolved = with_measured_steps(resolved, steps)
    if completed.uses_recipe:
        resolved = from_length(resolved, len(examples))
    report_settings(resolved, len(examples))
    *_, devices, card = this_machine()
    if completed.uses_recipe and card and not resolved.config.timed:
        say(derived_report(resolved.config, card, devices))
    with locked(folder):
        before()
        if is_first_process():
            create_run(folder, to_toml(resolved))
            record_data(folder, data_record(examples))
            keep_encoder(encoder, folder)
        barrier()
        run_on_all(partial(require_shared_run, folder))
        with memory_errors(resolved.config, folder):
            train(resolved, inputs, folder, stop_at=stop_at, fallback=False, new_settings=False)
    return folder


def with_fitting_batch(resolved: Resolved, inputs: RunInputs) -> Resolved:
    """Return the settings, with the batch divided into parts that are accumulated if the recipe chose one that does not
    fit into memory. Raises InputError if a batch that was set does not fit, with one that does."""
    needed, config = partial(needed_bytes, resolved, inputs), resolved.config
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    if resolved.origins["batch_size"].layer != FROM_MACHINE:
        run_on_all(lambda: require_memory(config, shape, needed))
        return resolved
    found = run_on_all(lambda: fitting_division(config, shape, needed))
    if found is None:
        return resolved
    parts = found.parts * config.optimization.grad_accum_steps
    say(f"batch_size {found.batch}, {parts} of which make up an optimizer step: more does not fit into memory")
    resolved = changed(resolved, "training", FROM_MACHINE, batch_size=found.batch)
    return changed(resolved, "optimization", FROM_MACHINE, grad_accum_steps=parts)


def with_measurements(resolved: Resolved, inputs: RunInputs) -> Resolved:
    """Return the settings with what follows from the latents and from the devices.

    Raises InputError if init_from or the teacher does not fit.
    """
    config = resolved.config
    distillation = config.distillation
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    if config.training.init_from:  # raises for weights that do not fit; train reads them again
        load_initial_params(config.training.init_from, shape)
    teacher: dict = {}
    if distillation.student_steps is not None:
        teacher = load_initial_params(distillation.teacher or "", shape, distillation.teacher_step)
    latents = broadcast_from_first(partial(measured_latents, config, inputs))
    resolved = changed(resolved, "encoder", "measured", **latents)
    if distillation.distill_objective == "mmd" and distillation.sigma == "measure":
        sigma = broadcast_from_first(partial(measured_sigma, resolved.config, inputs, teacher, shape))
        resolved = changed(resolved, "distillation", "measured", sigma=sigma)
    if group_size := device_group(config, jax.device_count()):
        why = f"the examples of a batch on each of {jax.device_count()} devices (docs/pods.md)"
        if distillation.distill_objective == "mmd":
            why = f"whole kernels of {distillation.kernel_texts} texts beside the examples that decode"
        say(f"group_size {group_size}: {why}")
        resolved = changed(resolved, "objective", "from the devices", group_size=group_size)
    return resolved


def resume_run(folder: Path, sets: Sequence[str] = (), *, fallback: bool = False, other_data: bool = False) -> Path:
    """Continue the run in `folder` from its newest checkpoint, or from the start if it has none yet.

    fallback: if the newest checkpoint is damaged, continue from the newest intact one instead of refusing.
    other_data: continue on data that is not what the run started with.
    """
    prepare()
    run_on_all(partial(require_shared_run, folder))
    resolved = resolve_run(folder / CONFIG_FILE, sets)
    for line in resolved.notices:
        say(line)
    resolved = replace(resolved, config=with_own_encoder(resolved.config, folder))
    before = resolve_run(folder / CONFIG_FILE).config
    refuse_other_network(before, resolved.config)
    if resolved.config.timed:
        raise InputError("minutes: the number of steps is measured when a run starts, and kept; this run has "
                         f"{before.training.steps}: pass --set steps=N")  # fmt: skip
    with first_process_first():
        examples = open_examples(resolved.config)
    if not other_data:
        broadcast_from_first(partial(require_same_data, folder, data_record(examples), examples.path))
    inputs = open_inputs_on_all(resolved.config, examples)
    refuse_old_dropout(recorded_starts(folder), resolved.config, sets)
    read_metrics(folder)
    with locked(folder):
        barrier()
        if is_first_process():
            record_data(folder, data_record(examples))
        with memory_errors(resolved.config, folder):
            train(resolved, inputs, folder, stop_at=None, fallback=fallback, new_settings=bool(sets))
    return folder


def refuse_other_network(before: Config, after: Config) -> None:
    """Raise InputError for changed settings that the run's checkpoints do not fit."""
    for section, names in FIXED.items():
        for name in names:
            old, new = getattr(getattr(before, section), name), getattr(getattr(after, section), name)
            if old != new:
                raise InputError(f"{name}: fixed for a run, which has {old}, not {new}: start a new run to change it")


def refuse_old_dropout(starts: list[dict], config: Config, sets: Sequence[str]) -> None:
    """Raise InputError if a run of 0.1.0 would continue with dropout in other places than it started with."""
    old = bool(starts) and str(starts[-1].get("packages", {}).get("elfcli")).startswith("0.1.")
    names = [name for name in ("proj_dropout", "attn_dropout") if getattr(config.network, name) > 0]
    if old and names and not any("proj_dropout=" in text.replace(" ", "") for text in sets):
        raise InputError(
            f"{names[0]}: this run was trained by elf 0.1, which applied dropout in other places (docs/reference.md): "
            "pass --set proj_dropout=RATE to continue with this version's"
        )


def require_shared_run(folder: Path) -> None:
    """Raise InputError if this process cannot find the run, for example on another file system than process 0's."""
    try:
        require_run(folder)
    except InputError as error:
        if is_first_process():
            raise
        raise InputError(f"{error}; all processes need the same file system") from None


def data_record(examples: Examples) -> dict:
    """Return what a run records of its data."""
    return {"fingerprint": examples.fingerprint, "examples": len(examples)}


def open_inputs_on_all(config: Config, examples: Examples) -> RunInputs:
    """Open the run's inputs; check that they are the same in all processes and fit their devices."""
    problems = check_devices(config, jax.device_count())
    if problems:
        raise InputError("\n".join(problems))
    device_group(config, jax.device_count())  # raises for kernels that do not fit into groups
    with first_process_first():
        tokenizer = load_tokenizer(tokenizer_of(config, examples))
    broadcast_from_first(partial(check_token_ids, examples, vocab_size(tokenizer)))
    with first_process_first():
        inputs = open_inputs(config, examples, tokenizer)
    run_length(config, len(examples))
    settings = config.model_dump(mode="json", exclude={"tracking"})
    flat = {f"{section}.{name}": value for section, values in settings.items() if section != "sampling"
            for name, value in values.items()}  # fmt: skip
    dtype, kernel = arithmetic(config)  # found for each machine
    flat |= {"type of activations": str(dtype), "attention kernel": kernel}
    assert_same_on_all("settings", flat | {"sampling": settings["sampling"], **data_record(examples)})
    return inputs
