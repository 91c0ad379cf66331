"""One optimizer step: draws, latents, the two-branch loss, clipping, update, moving average.

Keys are functions of (seed, step), so a resumed run draws the same numbers.
Shapes: A batches per optimizer step, B examples in a batch, S sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.config.schema import Config, DistillationSettings, ObjectiveSettings
from elfcli.flow import objective
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.encoder import Encoder, encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.optimizer import make_optimizer
from elfcli.parallel.mesh import by_example, state_shardings
from elfcli.runs.state import TrainState
from elfcli.training.students import kernel_group, student_objective

STEP_METRICS = ("loss", "denoise_loss", "decode_loss", "grad_norm", "skipped")


@dataclass(frozen=True)
class StepStatics:
    """What a step is compiled for. encode: `Encoder.apply`. latents: mean and standard deviation of latents."""

    objective: ObjectiveSettings
    distillation: DistillationSettings
    latents: tuple[float, float]
    pad_token: str
    shape: ElfShape
    encode: Callable[..., jax.Array]
    tx: optax.GradientTransformationExtraArgs
    mesh: Mesh


class StepRates(NamedTuple):
    """What changes from step to step or with the run's length, so the compiled step takes it as an argument.

    learning: learning rate. average: weight of the new weights in the moving average, 1 - decay. float32 scalars.
    """

    learning: Any
    average: Any


class Frozen(NamedTuple):
    """Weights that are not trained. teacher: None in ordinary training."""

    encoder: Any
    teacher: Any = None


def zero_totals() -> dict[str, jax.Array]:
    """Return empty totals of a step's metrics, a (sum, count) each."""
    return {name: jnp.zeros(2) for name in STEP_METRICS}


def init_state(shape: ElfShape, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """Return the initial state, with weights drawn from the seed."""
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
    """Return the number of groups of a batch; it does not depend on the devices, so neither does the run."""
    divisors = (size for size in range(16, 7, -1) if batch_size % size == 0)
    return batch_size // (cfg.group_size or next(divisors, batch_size))


def device_group(config: Config, num_devices: int) -> int | None:
    """Return the group_size that keeps every group on one device, if the default would not; otherwise None.

    A device with a single example cannot keep a group: a group has both branches. In MMD, return the size of groups
    that hold whole kernel rows. Raise InputError if there is none.
    """
    batch, cfg = config.global_batch, config.objective
    share = batch // num_devices
    if config.distillation.distill_objective == "mmd":
        return kernel_group(config, share)
    smaller = cfg.group_size is None and 1 < share < batch // num_groups(batch, cfg)
    return share if smaller else None


def make_train_step(config: Config, shape: ElfShape, encoder: Encoder, mesh: Mesh) -> Any:
    """Return `step(state, encoder_params, batch, rates) -> state`, jitted over the mesh; see `train_step`.

    The state is sharded by `state_shardings` and donated; the batch is sharded over its examples. A distillation has
    `step(..., rates, teacher_params)`, with the teacher sharded as the state's weights. Runs whose programs are equal
    share one jitted function.
    """
    latents = float(config.encoder.latent_mean), float(config.encoder.latent_std)
    tx, cfg = make_optimizer(config.optimization, shape.dtype), config.objective
    if config.distillation.distill_objective == "mmd" and (size := device_group(config, mesh.size)):
        cfg = cfg.model_copy(update={"group_size": size})
    return jitted_step(StepStatics(
        cfg, config.distillation, latents, config.data.pad_token, shape, encoder.apply, tx, mesh
    ))  # fmt: skip


@lru_cache(maxsize=8)
def jitted_step(statics: StepStatics) -> Any:
    """Return `train_step` of these statics, jitted with its shardings."""
    where = state_shardings(jax.eval_shape(lambda: init_state(statics.shape, statics.tx, 0)), statics.mesh)
    replicated = NamedSharding(statics.mesh, PartitionSpec())
    layout: tuple = where, replicated, by_example(statics.mesh, axis=1), replicated
    if statics.distillation.student_steps is not None:
        layout = (*layout, where.params)
    return jax.jit(partial(train_step, statics), in_shardings=layout, out_shardings=where, donate_argnums=0)


def train_step(
    statics: StepStatics,
    state: TrainState,
    encoder_params: Any,
    batch: dict[str, jax.Array],
    rates: StepRates,
    teacher: Any = None,
) -> TrainState:
    """Return the TrainState after one optimizer step.

    batch: `input_ids` int32, `cond_mask` and `valid_mask` bool, each (A, B, S). teacher: its weights, in distillation.
    If loss or gradients are not finite, only the counts change.
    """
    key, frozen = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step), Frozen(encoder_params, teacher)
    with jax.sharding.use_abstract_mesh(statics.mesh.abstract_mesh):  # for Muon and the attention kernels
        grads, values = mean_gradients(statics, state.params, frozen, batch, key)
        values["grad_norm"] = optax.global_norm(grads)[None]
        finite = jnp.isfinite(values["loss"]).all() & jnp.isfinite(values["grad_norm"]).all()
        values["skipped"] = 1.0 - finite[None]
        updates, opt_state = statics.tx.update(grads, state.opt_state, state.params, rate=rates.learning)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, rates.average)

    def unless_skipped(new: Any, old: Any) -> Any:
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


def mean_gradients(
    statics: StepStatics, params: Any, frozen: Frozen, batch: dict[str, jax.Array], key: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """Return the mean gradients and {metric: (A,)} of the A batches of a step."""

    def gradients(micro_batch: dict[str, jax.Array], key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        differentiated = jax.value_and_grad(loss, argnums=1, has_aux=True)
        (value, parts), grads = differentiated(statics, params, frozen, micro_batch, key)
        return grads, {"loss": value, **parts}

    count = batch["input_ids"].shape[0]
    if count == 1:
        grads, values = gradients(jax.tree.map(lambda a: a[0], batch), key)
        return grads, jax.tree.map(lambda v: v[None], values)

    def accumulate(total: Any, micro: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, dict[str, jax.Array]]:
        index, micro_batch = micro
        grads, values = gradients(micro_batch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, grads), values

    grads, values = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), (jnp.arange(count), batch))
    return jax.tree.map(lambda g: g / count, grads), values


def loss(
    statics: StepStatics, params: Any, frozen: Frozen, batch: dict[str, jax.Array], key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss to minimize and its parts for one batch of arrays (B, S)."""
    cfg, shape = statics.objective, statics.shape
    draw_key, dropout_key = jax.random.split(key)
    ids, cond, valid = batch["input_ids"], batch["cond_mask"], batch["valid_mask"]
    groups = num_groups(len(ids), cfg)

    def grouped(array: jax.Array) -> jax.Array:
        return array.reshape(groups, -1, *array.shape[1:])

    sizes = (groups, len(ids) // groups, ids.shape[1], shape.latent_dim)
    if statics.distillation.student_steps is None:
        draws, losses = objective.draw(draw_key, cfg, sizes), objective.split_loss
    else:
        draws, losses, cfg = student_objective(statics.distillation, cfg, shape, frozen.teacher, draw_key, sizes)
    x0 = clean_latents(statics, frozen.encoder, ids, cond, valid, draws.drop_GxN.reshape(-1))
    counted = objective.loss_mask(cond, valid, statics.pad_token)
    examples = objective.Batch(*map(grouped, (ids, cond, counted, x0)))
    model = nnx.merge(graphdef_of(ELF, shape), params)
    dropout = dropout_key if shape.proj_dropout else None
    return objective.branch_loss(model, examples, draws, cfg, dropout, losses)


def clean_latents(
    statics: StepStatics,
    encoder_params: Any,
    ids_BxS: jax.Array,
    cond_BxS: jax.Array,
    valid_BxS: jax.Array,
    drop_B: jax.Array,
) -> jax.Array:
    """Return x0 (B, S, E), normalized latents. If drop_B, the condition is hidden from the text and set to zero."""
    mean, std = statics.latents
    latents = statics.encode(encoder_params, ids_BxS, encoder_mask(cond_BxS, valid_BxS, drop_B))
    x0 = (latents - mean) / std
    return jax.lax.stop_gradient(objective.drop_condition(x0, cond_BxS, drop_B))


def total(values: jax.Array) -> jax.Array:
    """Return (sum, count) (2,) of the finite values of a metric (A,); NaN: branch not taken, or step skipped."""
    finite = jnp.isfinite(values)
    return jnp.stack([jnp.sum(jnp.where(finite, values, 0.0)), jnp.sum(finite)])


def step_rates(config: Config, learning_rate: float) -> StepRates:
    """Return the rates of one step."""
    return StepRates(np.float32(learning_rate), np.float32(1 - config.optimization.ema_decay))
