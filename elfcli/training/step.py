"""One optimiser step: draws, latents, the two-branch loss, clipping, update, moving average.

The state holds everything a run needs to go on exactly: weights, EMA, optimiser state, step, key, and the sums of the
metrics since the last logged step. Keys are functions of (seed, step), so nothing is replayed after a resume.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.config.schema import Config
from elfcli.flow import objective
from elfcli.models.elf import ELF, ElfShape, init_params
from elfcli.models.encoder import Encoder
from elfcli.models.layers import graphdef_of
from elfcli.parallel.mesh import by_example, state_shardings
from elfcli.runs.state import TrainState
from elfcli.training.optimizer import update_ema

METRICS = ("loss", "denoise_loss", "decode_loss", "grad_norm", "skipped")


def zero_totals() -> dict[str, jax.Array]:
    return {name: jnp.zeros(2) for name in METRICS}


def init_state(shape: ElfShape, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step; weights are drawn from the seed."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params = init_params(shape, init_key)
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=ema,
        opt_state=tx.init(params),
        key=jax.random.key_data(key),
        totals=zero_totals(),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def clean_latents(encoder: Encoder, encoder_params, ids, cond, valid, drop, cfg: Config):
    """x0 (B, S, E): normalised latents, with the dropped examples' conditions hidden from the rest and zeroed."""
    latents = encoder.apply(encoder_params, ids, objective.encoder_mask(cond, valid, drop))
    x0 = (latents - cfg.encoder.latent_mean) / cfg.encoder.latent_std
    return jax.lax.stop_gradient(objective.drop_condition(x0, cond, drop))


def make_train_step(cfg: Config, shape: ElfShape, encoder: Encoder, tx: optax.GradientTransformation, mesh: Mesh):
    """`step(state, encoder_params, batch) -> state`, jitted over the mesh.

    state: laid out as `state_shardings` says. batch: `input_ids` int32, `cond_mask` and `valid_mask` bool, each
    (A, B, S) with A batches per optimiser step, sharded over their examples.
    """
    groups = objective.num_groups(cfg.global_batch, cfg.objective, mesh.size)
    graphdef = graphdef_of(ELF, shape)

    def loss(params, encoder_params, batch, key):
        draw_key, dropout_key = jax.random.split(key)
        ids, cond, valid = batch["input_ids"], batch["cond_mask"], batch["valid_mask"]
        draws = objective.draw(draw_key, cfg.objective, (*ids.shape, shape.latent_dim), groups)
        x0 = clean_latents(encoder, encoder_params, ids, cond, valid, draws.drop_B, cfg)
        counted = objective.loss_mask(cond, valid, cfg.data.pad_token)
        model = nnx.merge(graphdef, params)
        examples = objective.Batch(ids, cond, counted, x0)
        dropout_key = dropout_key if shape.has_dropout else None
        return objective.branch_loss(model, examples, draws, cfg.objective, dropout_key, groups)

    def gradients(params, encoder_params, batch, key):
        (value, parts), grads = jax.value_and_grad(loss, has_aux=True)(params, encoder_params, batch, key)
        return grads, {"loss": value, **parts}

    def train_step(state: TrainState, encoder_params, batch) -> TrainState:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for what is shared out by hand inside
            return one_step(state, encoder_params, batch)

    def one_step(state: TrainState, encoder_params, batch) -> TrainState:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        count = batch["input_ids"].shape[0]
        if count == 1:
            grads, values = gradients(state.params, encoder_params, jax.tree.map(lambda a: a[0], batch), key)
            values = jax.tree.map(lambda v: v[None], values)
        else:

            def accumulate(total, micro):
                index, micro_batch = micro
                grads, values = gradients(state.params, encoder_params, micro_batch, jax.random.fold_in(key, index))
                return jax.tree.map(jnp.add, total, grads), values

            zeros = jax.tree.map(jnp.zeros_like, state.params)
            grads, values = jax.lax.scan(accumulate, zeros, (jnp.arange(count), batch))
            grads = jax.tree.map(lambda g: g / count, grads)
        values["grad_norm"] = optax.global_norm(grads)[None]
        finite = jnp.isfinite(values["loss"]).all() & jnp.isfinite(values["grad_norm"]).all()
        values["skipped"] = 1.0 - finite[None]
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, cfg.optimization.ema_decay1)

        def unless_skipped(new, old):
            """A step that is not finite changes nothing but the counts."""
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        return TrainState(
            step=state.step + 1,
            params=unless_skipped(params, state.params),
            ema=unless_skipped(ema, state.ema),
            opt_state=unless_skipped(opt_state, state.opt_state),
            key=state.key,
            totals={name: state.totals[name] + total(values[name]) for name in METRICS},
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )

    where = state_shardings(jax.eval_shape(lambda: init_state(shape, tx, 0)), mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        train_step, in_shardings=(where, replicated, by_example(mesh, axis=1)), out_shardings=where, donate_argnums=0
    )


def total(values):
    """(sum, count) of a metric's finite values: NaN marks a branch that was not taken, or a step that was skipped."""
    finite = jnp.isfinite(values)
    return jnp.stack([jnp.sum(jnp.where(finite, values, 0.0)), jnp.sum(finite)])
