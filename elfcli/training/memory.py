"""Checks that a training step fits into memory, by the compiler's analysis, before anything is written."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elfcli.config.schema import Config
from elfcli.errors import ElfError, InputError
from elfcli.models.elf import ElfShape, abstract_params, num_params
from elfcli.parallel.memory import EXHAUSTED, least_memory, size_text
from elfcli.parallel.mesh import STATE_BYTES


def rough_bytes(config: Config, shape: ElfShape) -> int:
    """Return an upper estimate of what a step needs on one device: state, activations without remat, logits."""
    tokens = config.global_batch * config.data.max_length // jax.device_count()
    each_block = 60 * shape.hidden_size + 4 * shape.num_heads * config.data.max_length
    activations = tokens * (shape.depth * each_block + 4 * shape.vocab_size + 40 * shape.latent_dim)
    return (STATE_BYTES + 4) * num_params(abstract_params(shape)) + 4 * activations


def step_bytes(step: Any, *arguments: Any) -> float:
    """Return the bytes that the compiled step needs on one device; infinity if the compiler refuses it as too large."""
    try:
        found = step.lower(*arguments).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if EXHAUSTED not in str(error):
            raise
        return math.inf  # some compilers refuse what cannot fit
    if found is None:  # this compiler has no memory analysis
        return 0
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return kept + found.temp_size_in_bytes


class Division(NamedTuple):
    """A smaller batch whose step fits, its bytes, how many of them make up the original batch, and why it is needed."""

    batch: int
    bytes: float
    parts: int
    why: str


def fitting_division(config: Config, shape: ElfShape, needed: Callable[[int], float]) -> Division | None:
    """Return None if a step fits into memory, otherwise how to divide its batch. Raises InputError if nothing fits.

    needed(batch): bytes of a step on one device with this many examples over all devices. It compiles, so it is called
    only if a rough estimate says that memory may be short. All processes call this together and compile the same.
    """
    memory, batch, devices = least_memory(), config.global_batch, jax.device_count()
    if memory is None or rough_bytes(config, shape) < memory / 4 or (wanted := needed(batch)) <= memory:
        return None
    # Only activations grow with the batch: a first guess, and half of it if that is still too much.
    fixed = (STATE_BYTES + 4) * num_params(abstract_params(shape))
    each = (min(wanted, float(rough_bytes(config, shape))) - fixed) / batch
    smaller = 1 << max(int((0.9 * memory - fixed) / each), 0).bit_length() >> 1
    for guess in (smaller // devices * devices, smaller // 2 // devices * devices):
        if guess and (needs := needed(guess)) <= memory:
            return Division(guess, needs, -(-batch // guess), too_large(config, wanted, memory))
    half = max(config.data.max_length // 2, 1)
    raise InputError(
        f"{too_large(config, wanted, memory)}, and no smaller batch fits: pass a smaller --model (ELF-S, ELF-XS), "
        f"--set max_length={half} or --set remat=full"
    )


def require_memory(config: Config, shape: ElfShape, needed: Callable[[int], float]) -> None:
    """Raise InputError if a step does not fit, with settings that do. needed: see `fitting_division`."""
    if found := fitting_division(config, shape, needed):
        times = found.parts * config.optimization.grad_accum_steps
        raise InputError(f"{found.why}: pass --batch-size {found.batch} (which needs {size_text(found.bytes)}), with "
                         f"--set grad_accum_steps={times} for the same optimizer step")  # fmt: skip


def too_large(config: Config, wanted: float, memory: int) -> str:
    """Return the start of the message that a step needs more bytes (`wanted`) than a device has."""
    what = f"a training step of {config.global_batch} examples of {config.data.max_length} tokens needs"
    return f"{what} {size_text(wanted)} on each device, which has {size_text(memory)}"


@contextmanager
def memory_errors(config: Config, run: Path) -> Iterator[None]:
    """Turn a device's out-of-memory error into an ElfError that says how to continue."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if EXHAUSTED not in str(error):
            raise
        batch, accumulate = config.global_batch, config.optimization.grad_accum_steps
        smaller = f"elf resume {run} --set batch_size={batch // 2} --set grad_accum_steps={2 * accumulate}"
        way = f"`{smaller}` takes the same steps in smaller parts" if batch > 1 else "pass --set remat=full"
        raise ElfError(f"{run}: a device ran out of memory with batches of {batch}; {way}") from error


def abstract_batch(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the batch of an optimizer step as shapes (A, B, S)."""
    sizes = (config.optimization.grad_accum_steps, config.global_batch, config.data.max_length)
    masks = {name: jax.ShapeDtypeStruct(sizes, bool) for name in ("cond_mask", "valid_mask")}
    return {"input_ids": jax.ShapeDtypeStruct(sizes, jnp.int32)} | masks


def abstract_teacher(config: Config, state: Any) -> tuple:
    """Return the teacher's weights as shapes, as the step takes them; () in ordinary training."""
    return (state.params,) if config.distillation.student_steps is not None else ()
