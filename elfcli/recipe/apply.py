"""From the user's settings to the final ones, in one order for `elf train`, `elf plan` and `elf config show`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from elfcli.config.cards import Card, card_of
from elfcli.config.resolve import Resolved, changed, check_again, resolve, with_devices
from elfcli.data.folder import Examples, keys_of
from elfcli.parallel.agree import first_process_first
from elfcli.recipe import choose
from elfcli.recipe.cooccurrence import VECTOR_WIDTH
from elfcli.recipe.defaults import (
    DEFAULT_TASK,
    needs_task,
    with_data,
    with_local_data,
    with_overfit_length,
    with_source_length,
)
from elfcli.recipe.encoder import with_encoder
from elfcli.recipe.vectors import will_be_vectors
from elfcli.runs.examples import open_examples
from elfcli.scoring import check_metric_names
from elfcli.ui.progress import say
from elfcli.weights.encoder import latent_width
from elfcli.weights.open import open_source


@dataclass(frozen=True)
class Context:
    """What the steps of the pipeline look at.

    backend, devices, card: the machine of the run; card: None if configs/gpus.toml does not list it. may_write: whether
    token vectors may be computed and written; otherwise the folder that they would have is named.
    """

    examples: Examples
    backend: str
    devices: int
    card: Card | None
    may_write: bool


@dataclass(frozen=True)
class Completed:
    """Settings with what data and machine decide. uses_recipe: whether the recipe for custom data applies."""

    resolved: Resolved
    examples: Examples
    uses_recipe: bool


def requested_settings(
    *,
    task: str | None = None,
    model: str | None = None,
    flags: Mapping[str, Any] | None = None,
    files: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
    style: str | None = None,
) -> Resolved:
    """Resolve the settings that the user asked for, by default those of DEFAULT_TASK; print notices and warnings."""
    resolved = resolve(task=task, model=model, files=files, sets=sets, flags=flags, style=style)
    if needs_task(resolved, bool(files)):
        say(f"no --task and no --data: using the {DEFAULT_TASK} recipe")
        resolved = resolve(task=DEFAULT_TASK, model=model, sets=sets, flags=flags)
    resolved = with_overfit_length(resolved)
    for line in [*resolved.notices, *(f"warning: {warning}" for warning in resolved.warnings)]:
        say(line)
    return resolved


Machine = tuple[str, int, Card | None]
"""Backend and number of devices, and which card they are if that is known."""


def this_machine() -> Machine:
    """Return the machine that JAX sees."""
    return jax.default_backend(), jax.device_count(), card_of(jax.local_devices()[0].device_kind)


def complete(resolved: Resolved, *, machine: Machine | None = None, may_write: bool = True) -> Completed:
    """Return the settings with what data and machine decide, and the training examples.

    machine: by default this one. Process 0 goes first, so that the others find what it writes. Raises InputError if the
    settings contradict each other, the data or the machine.
    """
    machine = machine or this_machine()
    with first_process_first():
        resolved = with_data(resolved) if may_write else with_local_data(resolved)
        context = Context(open_examples(resolved.config), *machine, may_write)
        recipe = choose.uses_recipe(resolved)
        for step in RECIPE_STEPS if recipe else STEPS:
            resolved = step(resolved, context)
    return Completed(check_again(resolved), context.examples, recipe)


def preview(resolved: Resolved, *, machine: Machine | None = None) -> Resolved:
    """Return the settings that `elf train` would choose, except those that it measures. Writes nothing.

    What follows from the data is left out if the data is not available locally.
    """
    resolved = with_local_data(resolved)
    path = resolved.config.data.data_path
    if path is None or not Path(path).expanduser().exists():
        return check_again(with_devices(resolved, machine[1] if machine else jax.device_count()))
    completed = complete(resolved, machine=machine, may_write=False)
    if not completed.uses_recipe:
        return completed.resolved
    found = choose.from_length(completed.resolved, len(completed.examples))
    return changed(found, "training", None, steps=None) if completed.resolved.config.timed else found


# --- the steps, in their order --------------------------------------------------------------------------------------


def _for_devices(resolved: Resolved, context: Context) -> Resolved:
    return with_devices(resolved, context.devices)


def _check_metrics(resolved: Resolved, context: Context) -> Resolved:
    check_metric_names(resolved.config.evaluation.metrics, resolved.origins["metrics"].place())
    return resolved


def _with_columns(resolved: Resolved, context: Context) -> Resolved:
    """Record the columns of sources and targets for files that are sampled later, perhaps without the data."""
    columns = dict(zip(("source_key", "target_key"), keys_of(context.examples.metadata), strict=False))
    return choose.with_defaults(resolved, choose.FROM_DATA, **columns)


def _from_init_weights(resolved: Resolved, context: Context) -> Resolved:
    start = resolved.config.training.init_from
    theirs = open_source(start).config if start else None
    return choose.from_weights(resolved, theirs) if theirs else resolved


def _from_data(resolved: Resolved, context: Context) -> Resolved:
    return choose.from_data(resolved, context.examples)


def _with_source_length(resolved: Resolved, context: Context) -> Resolved:
    return with_source_length(resolved, context.examples)


def _with_encoder(resolved: Resolved, context: Context) -> Resolved:
    return with_encoder(resolved, context.examples, context.may_write)


def _from_latents(resolved: Resolved, context: Context) -> Resolved:
    encoder = resolved.config.encoder
    return choose.from_latents(
        resolved, VECTOR_WIDTH if will_be_vectors(encoder.encoder_model_name) else latent_width(encoder)
    )


def _from_machine(resolved: Resolved, context: Context) -> Resolved:
    return choose.from_machine(resolved, context.examples, context.backend, context.devices, context.card)


Step = Callable[[Resolved, Context], Resolved]
STEPS: tuple[Step, ...] = (_check_metrics, _for_devices, _with_columns, _with_source_length)
RECIPE_STEPS: tuple[Step, ...] = (
    _check_metrics,
    _for_devices,
    _with_columns,
    _from_init_weights,
    _from_data,
    _with_source_length,
    _with_encoder,
    _from_latents,
    _from_machine,
)
"""Steps of a run on custom data; STEPS: of a task, a file of the reference, or a round of a distillation."""
