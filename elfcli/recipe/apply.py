"""From the user's settings to the final ones."""

from collections.abc import Callable
from pathlib import Path

import jax

from elfcli.config.resolve import Resolved, changed, check_again, with_devices
from elfcli.data.folder import Examples
from elfcli.parallel.agree import first_process_first
from elfcli.recipe import choose as recipe
from elfcli.recipe.defaults import with_source_length
from elfcli.recipe.encoder import with_encoder
from elfcli.runs.examples import open_examples
from elfcli.weights.open import open_source


def with_recipe(
    resolved: Resolved,
    examples: Examples,
    make: Callable[[Examples], Path] | None,
    machine: tuple[str, int] | None = None,
) -> Resolved:
    """The settings with what the data and the machine decide. make: see with_encoder. machine: (backend, number of
    devices), by default this one."""
    backend, devices = machine or (jax.default_backend(), jax.device_count())
    resolved = recipe.with_keys(with_devices(resolved, devices), examples)
    if not recipe.applies(resolved):
        return check_again(with_source_length(resolved, examples))
    if start := resolved.config.training.init_from:
        with first_process_first():  # the others find it in the cache
            theirs = open_source(start).config
        resolved = recipe.from_weights(resolved, theirs) if theirs else resolved
    resolved = with_source_length(recipe.from_data(resolved, examples), examples)
    with first_process_first():
        resolved = with_encoder(resolved, examples, make)
    return check_again(recipe.from_machine(resolved, examples, backend, devices))


def preview_settings(
    resolved: Resolved, make: Callable[[Examples], Path], machine: tuple[str, int] | None = None
) -> Resolved:
    """The settings that `elf train` would choose, but for what it measures. make, machine: as in with_recipe."""
    examples = open_examples(resolved.config)
    resolved = with_recipe(resolved, examples, make, machine)
    if recipe.applies(resolved):
        found = recipe.from_length(resolved, len(examples), None, own=True)
        return changed(found, "training", None, steps=None) if resolved.config.timed else found
    return resolved
