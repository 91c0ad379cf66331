"""What a step of a distillation minimizes, from the settings of its run: progressive, MMD or IRD."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from elfcli.config.schema import Config, DistillationSettings, ObjectiveSettings
from elfcli.errors import InputError
from elfcli.flow import distill, mmd, objective
from elfcli.models.elf import ELF, ElfShape
from elfcli.models.layers import graphdef_of


def student_objective(
    settings: DistillationSettings,
    cfg: ObjectiveSettings,
    shape: ElfShape,
    teacher: Any,
    key: jax.Array,
    sizes: tuple[int, int, int, int],
) -> tuple[objective.Draws, Callable, ObjectiveSettings]:
    """Return the random numbers for latents of these sizes (G, N, S, E), the function of the losses, and the settings
    by which `objective.branch_loss` weighs them. teacher: the frozen network's weights."""
    if settings.distill_objective == "progressive":
        network = nnx.merge(graphdef_of(ELF, shape), teacher)
        return distill.draw(key, cfg, settings, sizes), distill.Teacher(network, settings).losses, cfg
    draw_key, noise_key, passes_key = jax.random.split(key, 3)
    draws = objective.draw(draw_key, cfg, sizes)
    draws, (G, N, *latents) = draws._replace(drop_GxN=jnp.zeros_like(draws.drop_GxN)), sizes  # no condition is dropped
    weighted = mmd.by_share(cfg, N)
    if settings.distill_objective == "ird":
        return draws, mmd.Ird(nnx.merge(graphdef_of(ELF, shape), teacher), settings.ird_passes).losses, weighted
    real_noise = jax.random.normal(noise_key, (G, N - objective.branch_sizes(N, cfg)[0], *latents))
    network, passes = feature_network(teacher, shape, settings), mmd.draw_passes(passes_key, settings)
    return draws, mmd.Mmd(network, settings, passes, real_noise).losses, weighted


def feature_network(params: Any, shape: ElfShape, settings: DistillationSettings) -> ELF:
    """Return the frozen network up to the block that gives the features; calling it returns their states."""
    depth = settings.feature_block(shape.depth) + 1
    blocks = jax.tree.map(lambda a: a[:depth], params["blocks"])
    return nnx.merge(graphdef_of(ELF, replace(shape, depth=depth)), {**params, "blocks": blocks})


def kernel_group(config: Config, device_share: int) -> int | None:
    """Return the group_size of `mmd.kernel_group` if group_size is not set. Raise InputError if kernels do not fit."""
    batch, cfg, texts = config.global_batch, config.objective, config.distillation.kernel_texts
    which = f"kernel_texts {texts}: has to divide the examples of a group that do not decode"
    if size := cfg.group_size:
        rest = size - objective.branch_sizes(size, cfg)[0]
        if rest < 1 or rest % texts:
            raise InputError(f"{which}, but of {size} (group_size) {rest} do not: leave group_size out")
        return None
    size = mmd.kernel_group(batch, device_share, cfg, texts)
    if size is None:
        step = batch // device_share
        larger = range(batch + step, batch + 100 * step * texts, step)
        near = next((size for size in larger if mmd.kernel_group(size, size // step, cfg, texts)), None)
        way = f"use batch_size {near}, or another kernel_texts" if near else "set decoder_prob below 1"
        raise InputError(f"{which}, and no group of a batch of {batch} with decoder_prob {cfg.decoder_prob:g} has such "
                         f"a number: {way}")  # fmt: skip
    return size
