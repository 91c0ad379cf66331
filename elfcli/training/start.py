"""Starting and resuming runs: open and check what a run reads, make or find its folder, train."""

from functools import partial
from pathlib import Path

import jax

from elfcli.config.check import check_devices
from elfcli.config.render import to_toml
from elfcli.config.resolve import Origin, Resolved, resolve_run
from elfcli.config.schema import Config
from elfcli.data.folder import vocab_size
from elfcli.errors import InputError
from elfcli.hub.sources import initial_params
from elfcli.models.build import elf_shape
from elfcli.parallel.agree import barrier, by_first, everyone, first_goes_ahead, require_same
from elfcli.parallel.backend import prepare
from elfcli.runs import folder as run
from elfcli.runs.lock import locked
from elfcli.training.inputs import Inputs, open_inputs, with_measured_latents
from elfcli.training.length import make_plan
from elfcli.training.loop import train
from elfcli.ui.progress import is_first_process


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
    resolved = resolve_run(folder / run.CONFIG_FILE, sets)
    refuse_other_network(resolve_run(folder / run.CONFIG_FILE).config, resolved.config)
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
