"""Masked tokens (Devlin et al. 2019), by which an encoder is trained: which are masked, the loss, a step, accuracies.

Tokens see each other as in ELF's training (models/encoder.py: encoder_mask), so the latents are trained as they are
used. A smaller loss on tokens that stay, read from noised latents, keeps tokens apart, which ELF's decoder needs.
Shapes: B rows, S tokens of a row, K predicted positions of a row, E latent width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from elfcli.config.schema import Optimization
from elfcli.data.batches import Batch, collate
from elfcli.models.encoder import apply_t5, encoder_mask
from elfcli.models.layers import abstract
from elfcli.models.t5 import T5Encoder, T5Shape
from elfcli.optimizer import make_optimizer

MASKED = 0.2  # share of each row's tokens that is masked
STAYING_LOSS = 0.3  # weight of the loss on tokens that stay, against that on masked ones
STAYING_NOISE = 1.0  # on the latents that these are read from, in units of their root mean square
DROPPED = 0.1  # share of rows whose texts do not see their conditions, as in ELF's training for guidance
OPTIMIZATION = Optimization(optimizer="adamw", lr=3e-3, lr_schedule="cosine", weight_decay=0.01, adam_b2=0.98)
OPTIMIZER = make_optimizer(OPTIMIZATION, 1.0)  # the rate is an argument of each step


@dataclass(frozen=True)
class Task:
    """The static arguments of a step: network, and token put in place of masked ones."""

    shape: T5Shape
    mask_id: int


def initial_params(task: Task, seed: int, counts_V) -> dict:
    """The encoder's parameters, and `bias` (V,), by which masked tokens are predicted: first the tokens' frequencies.

    counts_V: of the tokens in the data. Learning them took most of a short training that began without.
    """
    counts_V = np.asarray(counts_V) + 1.0
    bias = jnp.asarray(np.log(counts_V / counts_V.sum()), jnp.float32)
    return {**t5_params(task.shape, jax.random.key(seed)), "bias": bias}


def t5_params(shape: T5Shape, key) -> dict:
    """Parameters drawn as T5 draws them, float32 as a nested dict: normal, with q's smaller by the square root of the
    head size, since T5 does not scale the logits of its attention; the norms' weights are ones."""
    width, inner = shape.d_model**-0.5, (shape.num_heads * shape.d_kv) ** -0.5
    std = {"embedding": 1.0, "rel_embedding": width, "q": width * shape.d_kv**-0.5, "o": inner, "wo": shape.d_ff**-0.5}
    leaves, tree = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(nnx.state(abstract(T5Encoder, shape))))
    keys, drawn = jax.random.split(key, len(leaves)), []
    for own_key, (path, leaf) in zip(keys, leaves, strict=True):
        *_, module, name = ("", *(part.key for part in path))
        if name == "weight":  # of a norm
            drawn.append(jnp.ones(leaf.shape))
        else:
            scale = std.get(module if name == "kernel" else name, width)
            drawn.append(scale * jax.random.normal(own_key, leaf.shape))
    return jax.tree.unflatten(tree, drawn)


def encoder_params(params: dict) -> dict:
    return {name: leaf for name, leaf in params.items() if name != "bias"}


def pack(
    examples: Sequence[Mapping[str, Any]], *, rows: int, max_length: int, max_input_length: int, pad_id: int
) -> Batch:
    """Examples cut as `collate` cuts them, as many as fit into `rows` rows, the longest first.

    Its arrays, each (rows, max_length), and `segment` int32: the example of each token, that of padding the row's last.
    T5 knows only distances, so an example has the latents that it would have alone in a row.
    """
    batch = collate([{"input_ids": ()}] * rows, max_length=max_length, max_input_length=0, pad_id=pad_id)
    batch["segment"] = np.zeros((rows, max_length), np.int32)
    cut = [collate([e], max_length=max_length, max_input_length=max_input_length, pad_id=pad_id) for e in examples]
    cut.sort(key=lambda one: -one["valid_mask"].sum())
    lengths = np.array([one["valid_mask"].sum() for one in cut])
    for number, (one, length, (row, start)) in enumerate(
        zip(cut, lengths, places(lengths, max_length), strict=True), 1
    ):
        if row < rows and length:
            for name, array in one.items():
                batch[name][row, start : start + length] = array[0, :length]
            batch["segment"][row, start:] = number
    return batch


def places(lengths, room: int) -> list[tuple[int, int]]:
    """(row, start) of each length, in the first row of `room` tokens that has place for it."""
    ends, found = np.zeros(len(lengths), np.int64), []
    for length in lengths:
        row = int(np.argmax(ends + length <= room))
        found.append((row, int(ends[row])))
        ends[row] += length
    return found


def mask_of(batch: Batch, drop_B):
    """`encoder_mask` (B, S, S) of packed examples, which do not see each other."""
    segment_BxS = batch["segment"]
    same_BxSxS = segment_BxS[:, :, None] == segment_BxS[:, None, :]
    return encoder_mask(batch["cond_mask"], batch["valid_mask"], drop_B) & same_BxSxS


def corrupt(key, task: Task, ids_BxS, valid_BxS):
    """(ids_BxS with masks, positions_BxK to predict, masked_BxK): random positions, first the masked ones, then tokens
    that stay, padding last.

    Of masked tokens 80% become `mask_id`, 10% a random token, 10% stay, so that the network looks at every token.
    """
    B, S = ids_BxS.shape
    order_key, kind_key, token_key = jax.random.split(key, 3)
    count = max(int(2 * MASKED * S), 2)
    _, positions_BxK = jax.lax.top_k(jax.random.uniform(order_key, (B, S)) + valid_BxS, count)
    masked_BxK = jnp.arange(count) < jnp.ceil(MASKED * valid_BxS.sum(1, keepdims=True))
    own_BxK = jnp.take_along_axis(ids_BxS, positions_BxK, axis=1)
    random_BxK = jax.random.randint(token_key, own_BxK.shape, 0, task.shape.vocab_size)
    kind_BxK = jax.random.uniform(kind_key, own_BxK.shape)
    changed_BxK = jnp.where(kind_BxK < 0.8, task.mask_id, jnp.where(kind_BxK < 0.9, random_BxK, own_BxK))
    new_BxK = jnp.where(masked_BxK, changed_BxK, own_BxK)
    return jnp.asarray(ids_BxS).at[jnp.arange(B)[:, None], positions_BxK].set(new_BxK), positions_BxK, masked_BxK


def predicted(task: Task, params: dict, batch: Batch, key, drop_rate: float):
    """(logits_BxKxV, ids_BxK, masked_BxK) of corrupted examples at the positions to predict."""
    ids = batch["input_ids"]
    drop_key, noise_key, key = jax.random.split(key, 3)
    corrupted_BxS, positions_BxK, masked_BxK = corrupt(key, task, ids, batch["valid_mask"])
    drop_B = jax.random.bernoulli(drop_key, drop_rate, (len(ids),))
    latents_BxSxE = latents(task, params, corrupted_BxS, mask_of(batch, drop_B))
    latents_BxKxE = jnp.take_along_axis(latents_BxSxE, positions_BxK[..., None], axis=1)
    latents_BxKxE = jnp.where(masked_BxK[..., None], latents_BxKxE, noised(noise_key, latents_BxKxE))
    ids_BxK = jnp.take_along_axis(ids, positions_BxK, axis=1)
    logits_BxKxV = read_tokens(params, latents_BxKxE) + masked_BxK[..., None] * params["bias"]
    return logits_BxKxV, ids_BxK, masked_BxK


def noised(key, latents_BxKxE):
    """The latents with noise, whose size follows theirs without a gradient: larger latents would not escape it."""
    rms_BxKx1 = jnp.sqrt(jnp.mean(latents_BxKxE**2, axis=-1, keepdims=True))
    scale_BxKx1 = STAYING_NOISE * jax.lax.stop_gradient(rms_BxKx1)
    return latents_BxKxE + scale_BxKx1 * jax.random.normal(key, latents_BxKxE.shape)


def latents(task: Task, params: dict, ids_BxS, mask_BxSxS):
    return apply_t5(task.shape, encoder_params(params), ids_BxS, mask_BxSxS)


def read_tokens(params: dict, latents_BxKxE):
    """Logits (B, K, V) of a linear head: the embedding, scaled as T5 scales a tied one."""
    return latents_BxKxE.shape[-1] ** -0.5 * latents_BxKxE @ params["embedding"].T


def loss(task: Task, params: dict, batch: Batch, key):
    logits_BxKxV, ids_BxK, masked_BxK = predicted(task, params, batch, key, DROPPED)
    loss_BxK = optax.softmax_cross_entropy_with_integer_labels(logits_BxKxV, ids_BxK)
    masked, staying = (jnp.mean(loss_BxK, where=where) for where in (masked_BxK, ~masked_BxK))
    return masked + STAYING_LOSS * staying


@partial(jax.jit, static_argnums=0)
def train_step(task: Task, state: tuple, batch: Batch, rate, key):
    """((params, opt_state) after a step, loss). rate: an argument, so that the number of steps is free until the first
    step is compiled and timed."""
    params, opt_state = state
    value, grads = jax.value_and_grad(partial(loss, task))(params, batch, key)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
    return (optax.apply_updates(params, jax.tree.map(lambda u: rate * u, updates)), opt_state), value


@partial(jax.jit, static_argnums=0)
def measure_batch(task: Task, params: dict, batch: Batch, key) -> dict:
    """Sums over a batch: of masked tokens, those predicted; of clean latents, tokens read, values and squares."""
    logits_BxKxV, ids_BxK, masked_BxK = predicted(task, params, batch, key, 0.0)
    ids, valid = batch["input_ids"], batch["valid_mask"]
    latents_BxSxE = latents(task, params, ids, mask_of(batch, jnp.zeros(len(ids), bool)))
    read = jax.lax.map(lambda row: read_tokens(params, row).argmax(-1), latents_BxSxE)  # whole logits may be large
    counted = latents_BxSxE * valid[..., None]
    return {
        "masked": masked_BxK.sum(),
        "predicted": ((logits_BxKxV.argmax(-1) == ids_BxK) & masked_BxK).sum(),
        "tokens": valid.sum(),
        "read": ((read == ids) & valid).sum(),
        "sum": counted.sum(),
        "squares": (counted**2).sum(),
    }
