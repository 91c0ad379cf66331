"""One optimiser step: draws, latents, the two-branch loss, clipping, update, moving average.

Keys are functions of (seed, step), so a resumed run draws the same numbers.
Shapes: A batches per optimiser step, B examples in a batch, S sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.config.schema import Config, ObjectiveSettings
from elfcli.flow import distill, objective
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.encoder import Encoder, encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.parallel.mesh import by_example, state_shardings
from elfcli.runs.state import TrainState

STEP_METRICS = ("loss", "denoise_loss", "decode_loss", "grad_norm", "skipped")


@dataclass(frozen=True)
class Setup:
    """The static arguments of `train_step`. encode: `Encoder.apply`."""

    config: Config
    shape: ElfShape
    encode: Callable
    tx: optax.GradientTransformation
    mesh: Mesh


class Frozen(NamedTuple):
    """Weights that are not trained. teacher: None in ordinary training."""

    encoder: Any
    teacher: Any = None


def zero_totals() -> dict[str, jax.Array]:
    return {name: jnp.zeros(2) for name in STEP_METRICS}


def init_state(shape: ElfShape, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """The initial state, with weights drawn from the seed."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params = init_params(shape, init_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
        key=jax.random.key_data(key),
        totals=zero_totals(),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def num_groups(batch_size: int, cfg: ObjectiveSettings) -> int:
    """Number of groups of a batch: independent of the devices, so that any number of them gives the same run."""
    divisors = (size for size in range(16, 7, -1) if batch_size % size == 0)
    return batch_size // (cfg.group_size or next(divisors, batch_size))


def device_group(config: Config, num_devices: int) -> int | None:
    """The group_size that keeps every group on one device, where the default would not; None elsewhere.

    A device with a single example cannot keep a group: a group has both branches.
    """
    batch, cfg = config.global_batch, config.objective
    share = batch // num_devices
    smaller = cfg.group_size is None and 1 < share < batch // num_groups(batch, cfg)
    return share if smaller else None


def make_train_step(config: Config, shape: ElfShape, encoder: Encoder, tx: optax.GradientTransformation, mesh: Mesh):
    """`step(state, encoder_params, batch) -> state`, jitted over the mesh; see `train_step`.

    The state is sharded by `state_shardings` and donated; the batch is sharded over its examples. With the settings of
    a distillation `step(state, encoder_params, batch, teacher_params)`, the teacher sharded as the state's weights.
    """
    where = state_shardings(jax.eval_shape(lambda: init_state(shape, tx, 0)), mesh)
    step = partial(train_step, Setup(config, shape, encoder.apply, tx, mesh))
    layout: tuple = where, NamedSharding(mesh, PartitionSpec()), by_example(mesh, axis=1)
    if config.distillation.student_steps is not None:
        layout = (*layout, where.params)
    return jax.jit(step, in_shardings=layout, out_shardings=where, donate_argnums=0)


def train_step(setup: Setup, state: TrainState, encoder_params, batch: dict[str, jax.Array], teacher=None):
    """The TrainState after one optimiser step.

    batch: `input_ids` int32, `cond_mask` and `valid_mask` bool, each (A, B, S). teacher: its weights, in distillation.
    Where loss or gradients are not finite only the counts change.
    """
    key, frozen = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step), Frozen(encoder_params, teacher)
    with jax.sharding.use_abstract_mesh(setup.mesh.abstract_mesh):  # for Muon and the attention kernels
        grads, values = mean_gradients(setup, state.params, frozen, batch, key)
        values["grad_norm"] = optax.global_norm(grads)[None]
        finite = jnp.isfinite(values["loss"]).all() & jnp.isfinite(values["grad_norm"]).all()
        values["skipped"] = 1.0 - finite[None]
        updates, opt_state = setup.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1 - setup.config.optimization.ema_decay)

    def unless_skipped(new, old):
        return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

    return TrainState(
        step=state.step + 1,
        params=unless_skipped(params, state.params),
        ema=unless_skipped(ema, state.ema),
        opt_state=unless_skipped(opt_state, state.opt_state),
        key=state.key,
        totals={name: state.totals[name] + total(values[name]) for name in STEP_METRICS},
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )


def mean_gradients(setup: Setup, params, frozen: Frozen, batch: dict[str, jax.Array], key):
    """(mean gradients, {metric: (A,)}) of the A batches of a step."""

    def gradients(micro_batch, key):
        (value, parts), grads = jax.value_and_grad(loss, argnums=1, has_aux=True)(
            setup, params, frozen, micro_batch, key
        )
        return grads, {"loss": value, **parts}

    count = batch["input_ids"].shape[0]
    if count == 1:
        grads, values = gradients(jax.tree.map(lambda a: a[0], batch), key)
        return grads, jax.tree.map(lambda v: v[None], values)

    def accumulate(total, micro):
        index, micro_batch = micro
        grads, values = gradients(micro_batch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, grads), values

    grads, values = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), (jnp.arange(count), batch))
    return jax.tree.map(lambda g: g / count, grads), values


def loss(setup: Setup, params, frozen: Frozen, batch: dict[str, jax.Array], key):
    """(loss to minimise, its parts) of one batch of arrays (B, S)."""
    cfg, shape = setup.config, setup.shape
    draw_key, dropout_key = jax.random.split(key)
    ids, cond, valid = batch["input_ids"], batch["cond_mask"], batch["valid_mask"]
    groups = num_groups(len(ids), cfg.objective)

    def grouped(array):
        return array.reshape(groups, -1, *array.shape[1:])

    sizes, teaching = (*grouped(ids).shape, shape.latent_dim), cfg.distillation
    if teaching.student_steps is None:
        draws, losses = objective.draw(draw_key, cfg.objective, sizes), objective.split_loss
    else:
        teacher = nnx.merge(graphdef_of(ELF, shape), frozen.teacher)
        draws = distill.draw(draw_key, cfg.objective, teaching, sizes)
        losses = distill.Teacher(teacher, teaching).losses
    x0 = clean_latents(setup, frozen.encoder, ids, cond, valid, draws.drop_GxN.reshape(-1))
    counted = objective.loss_mask(cond, valid, cfg.data.pad_token)
    examples = objective.Batch(*map(grouped, (ids, cond, counted, x0)))
    model = nnx.merge(graphdef_of(ELF, shape), params)
    dropout = dropout_key if shape.proj_dropout else None
    return objective.branch_loss(model, examples, draws, cfg.objective, dropout, losses)


def clean_latents(setup: Setup, encoder_params, ids_BxS, cond_BxS, valid_BxS, drop_B):
    """x0 (B, S, E): normalised latents. Where drop_B, the condition is hidden from the text and set to zero."""
    latents = setup.encode(encoder_params, ids_BxS, encoder_mask(cond_BxS, valid_BxS, drop_B))
    x0 = (latents - setup.config.encoder.latent_mean) / setup.config.encoder.latent_std
    return jax.lax.stop_gradient(objective.drop_condition(x0, cond_BxS, drop_B))


def total(values):
    """(sum, count) (2,) of the finite values of a metric (A,); NaN: branch not taken, or step skipped."""
    finite = jnp.isfinite(values)
    return jnp.stack([jnp.sum(jnp.where(finite, values, 0.0)), jnp.sum(finite)])
