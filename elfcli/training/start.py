"""`start_run` and `resume_run`, which `elf train` and `elf resume` call: check the inputs, open the folder, train."""

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
from elfcli.models.build import elf_shape
from elfcli.parallel.agree import assert_same_on_all, barrier, broadcast_from_first, first_process_first, run_on_all
from elfcli.parallel.backend import prepare
from elfcli.recipe import choose as recipe
from elfcli.recipe import explain
from elfcli.recipe.apply import with_recipe
from elfcli.recipe.encoder import require_same_vocabulary
from elfcli.recipe.vectors import make_vectors
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
)  # fmt: skip
from elfcli.runs.length import run_length
from elfcli.runs.lock import locked
from elfcli.training.inputs import RunInputs, measured_latents, open_inputs, tokenizer_of
from elfcli.training.loop import train
from elfcli.training.memory import memory_errors
from elfcli.training.step import device_group
from elfcli.training.timing import check_memory, measured_pace, steps_that_fit
from elfcli.ui.progress import is_first_process, say
from elfcli.weights.own_encoder import with_own_encoder
from elfcli.weights.settings import load_initial_params

FIXED = {
    "network": ("depth", "hidden_size", "num_heads", "bottleneck_dim", "num_time_tokens", "num_self_cond_cfg_tokens",
                "num_model_mode_tokens", "text_position"),
    "encoder": ("embedding_dim", "embedding_seed", "latent_mean", "latent_std"),
    "optimization": ("optimizer",),
}  # fmt: skip
"""Settings that a run cannot change: the arrays of its checkpoints depend on them."""


def start_run(
    resolved: Resolved,
    folder: Path,
    *,
    stop_at: int | None = None,
    began: float | None = None,
    before: Callable[[], None] = lambda: None,
) -> Path:
    """Trains a new run in `folder`; returns it. InputError, before anything is written, where the input is wrong.

    before: called once all input is checked, just before the run is created. stop_at: optimiser step at which to save
    and stop; `resume_run` continues there. began: time.monotonic() from which the settings' minutes count, by default
    now.
    """
    began = time.monotonic() if began is None else began
    prepare()
    if is_first_process():  # the others may look after it has created the folder
        check_new(folder)
    own = recipe.applies(resolved)
    resolved, inputs = prepared(resolved)
    examples, steps = inputs.examples, None
    if resolved.config.timed:
        steps = broadcast_from_first(
            partial(steps_that_fit, resolved.config, measured_pace(resolved.config, inputs), began)
        )
    if own or steps:
        resolved = recipe.from_length(resolved, len(examples), steps, own)
    explain.report_settings(resolved, len(examples))
    with locked(folder):
        before()
        if is_first_process():
            create_run(folder, to_toml(resolved))
            record_data(folder, data_record(examples))
            keep_encoder(resolved.config.encoder.encoder_model_name, folder)
        barrier()
        run_on_all(partial(require_shared_run, folder))
        with memory_errors(resolved.config, folder):
            train(resolved, inputs, folder, stop_at=stop_at)
    return folder


def prepared(resolved: Resolved) -> tuple[Resolved, RunInputs]:
    """The settings with what data, machine and latents decide, and the inputs, checked before anything is written."""
    with first_process_first():
        examples = open_examples(resolved.config)
    own = recipe.applies(resolved)
    resolved = with_recipe(resolved, examples, make_vectors if jax.process_count() == 1 else None)
    if own:
        explain.report_data(resolved, examples)
    inputs = open_inputs_on_all(resolved.config, examples)
    broadcast_from_first(partial(require_same_vocabulary, resolved.config.encoder.encoder_model_name, inputs.tokenizer,
                     (examples.metadata or {}).get("tokenizer_source")))  # fmt: skip
    run_on_all(partial(check_memory, resolved, inputs))
    return with_measurements(resolved, inputs), inputs


def with_measurements(resolved: Resolved, inputs: RunInputs) -> Resolved:
    """The settings with what follows from the latents and from the devices. InputError where init_from or the teacher
    does not fit."""
    config, taught = resolved.config, resolved.config.distillation
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    if config.training.init_from:  # refuses weights that do not fit; train reads them again
        load_initial_params(config.training.init_from, shape)
    if taught.student_steps is not None:
        load_initial_params(taught.teacher or "", shape, taught.teacher_step)
    latents = broadcast_from_first(partial(measured_latents, config, inputs))
    resolved = changed(resolved, "encoder", "measured", **latents)
    if group_size := device_group(config, jax.device_count()):
        say(f"group_size {group_size}: what each of the {jax.device_count()} devices has of a batch (docs/pods.md)")
        resolved = changed(resolved, "objective", "from the devices", group_size=group_size)
    return resolved


def resume_run(folder: Path, sets=(), *, fallback: bool = False, other_data: bool = False) -> Path:
    """Continues the run in `folder` from its newest checkpoint, or from the start where it has none yet.

    fallback: where the newest checkpoint is damaged, continue from the newest intact one instead of refusing.
    other_data: continue on data that is not what the run started with.
    """
    prepare()
    run_on_all(partial(require_shared_run, folder))
    resolved = resolve_run(folder / CONFIG_FILE, sets)
    resolved = replace(resolved, config=with_own_encoder(resolved.config, folder))
    before = resolve_run(folder / CONFIG_FILE).config
    refuse_other_network(before, resolved.config)
    if resolved.config.timed:
        raise InputError("minutes: the steps that fit are counted when a run starts, and kept; this one has "
                         f"{before.training.steps}: give --set steps=N")  # fmt: skip
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
            train(resolved, inputs, folder, fallback=fallback, new_settings=bool(sets))
    return folder


def refuse_other_network(before: Config, after: Config) -> None:
    """InputError for changed settings that the run's checkpoints do not fit."""
    for section, names in FIXED.items():
        for name in names:
            old, new = getattr(getattr(before, section), name), getattr(getattr(after, section), name)
            if old != new:
                raise InputError(f"{name}: a run keeps it, this one has {old}, not {new}; start a new run to change it")


def refuse_old_dropout(starts: list[dict], config: Config, sets: Sequence[str]) -> None:
    """InputError where a run of 0.1.0 would go on with dropout in other places than it started with."""
    old = bool(starts) and str(starts[-1].get("packages", {}).get("elfcli")).startswith("0.1.")
    names = [name for name in ("proj_dropout", "attn_dropout") if getattr(config.network, name) > 0]
    if old and names and not any("proj_dropout=" in text.replace(" ", "") for text in sets):
        raise InputError(f"{names[0]}: this run was trained by elf 0.1, which dropped out in other places "
                         "(docs/reference.md): give --set proj_dropout=RATE to go on with this version's")  # fmt: skip


def require_shared_run(folder: Path) -> None:
    """InputError where this process cannot find the run, for example since process 0 has another file system."""
    try:
        require_run(folder)
    except InputError as error:
        if is_first_process():
            raise
        raise InputError(f"{error}; all processes need the same file system") from None


def data_record(examples: Examples) -> dict:
    """What a run puts down of its data."""
    return {"fingerprint": examples.fingerprint, "examples": len(examples)}


def open_inputs_on_all(config: Config, examples: Examples) -> RunInputs:
    """The run's inputs, checked to be the same in all processes and to fit their devices."""
    problems = check_devices(config, jax.device_count())
    if problems:
        raise InputError("\n".join(problems))
    with first_process_first():
        tokenizer = load_tokenizer(tokenizer_of(config, examples))
    broadcast_from_first(partial(check_token_ids, examples, vocab_size(tokenizer)))
    with first_process_first():
        inputs = open_inputs(config, examples, tokenizer)
    run_length(config, len(examples))
    settings = config.model_dump(mode="json", exclude={"tracking"})
    flat = {f"{section}.{name}": value for section, values in settings.items() if section != "sampling"
            for name, value in values.items()}  # fmt: skip
    assert_same_on_all("settings", flat | {"sampling": settings["sampling"], **data_record(examples)})
    return inputs
