"""Learning rate, Muon and AdamW (SPEC 5)."""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from elfcli.config.schema import Optimization


def peak_lr(cfg: Optimization, global_batch: int) -> float:
    """`lr`, or `blr` per 256 examples of an optimiser step."""
    return cfg.lr if cfg.lr is not None else cfg.blr * global_batch * cfg.grad_accum_steps / 256


def lr_schedule(cfg: Optimization, peak: float, warmup_steps: int, total_steps: int):
    """Learning rate at a 0-based optimiser step: linear from 0, then constant or cosine down to min_lr."""

    def rate(step):
        warm = peak * step / max(warmup_steps, 1)
        after = jnp.float32(peak)
        if cfg.lr_schedule == "cosine":
            progress = jnp.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
            after = cfg.min_lr + (peak - cfg.min_lr) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return jnp.where(step < warmup_steps, warm, after)

    return rate


def muon_dimensions(params):
    """Which leaves Muon orthogonalises: the matrices of the reference's tree, each layer of a stack by itself."""

    def dimensions(path, leaf):
        matrix_axes = leaf.ndim - (path[0].key == "blocks")
        return MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1) if matrix_axes == 2 else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def make_optimizer(cfg: Optimization, schedule) -> optax.GradientTransformation:
    """Clipping by global norm, then Muon (Adam for all but matrices) or AdamW."""
    if cfg.optimizer == "muon":
        update = muon(
            schedule,
            weight_decay=cfg.weight_decay,
            adam_weight_decay=cfg.weight_decay,
            muon_weight_dimension_numbers=muon_dimensions,
        )
    else:
        update = optax.adamw(schedule, b1=cfg.adam_b1, b2=cfg.adam_b2, weight_decay=cfg.weight_decay)
    return optax.chain(optax.clip_by_global_norm(cfg.clip_norm), update)


def update_ema(ema, params, decay: float):
    """Moving average of the weights after one optimiser step."""
    return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
