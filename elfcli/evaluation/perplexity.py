"""Generative perplexity and unigram entropy under GPT-2 (SPEC 7), exact against the reference's protocol."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from elfcli.models.gpt2 import GPT2, Gpt2Shape
from elfcli.models.layers import graphdef_of


@partial(jax.jit, static_argnums=0)
def _nll(shape: Gpt2Shape, params, ids_BxT, mask_BxT):
    logits = nnx.merge(graphdef_of(GPT2, shape), params)(ids_BxT, mask_BxT)
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], ids_BxT[:, 1:])


def score_tokens(shape: Gpt2Shape, params, ids_BxT, mask_BxT, eos_id: int):
    """(NLL, scored), both (B, T-1), of each next token; a target counts unless it is an eos after the row's first."""
    nll = _nll(shape, params, jnp.asarray(ids_BxT, jnp.int32), jnp.asarray(mask_BxT, bool))
    is_eos = np.asarray(ids_BxT) == eos_id
    first_eos = is_eos & (np.cumsum(is_eos, axis=1) == 1)
    return np.asarray(nll, np.float64), (~is_eos | first_eos)[:, 1:]


def unigram_entropies(token_rows, eos_id: int) -> np.ndarray:
    """-sum p ln(p + 1e-10) of each row's unigram distribution, eos excluded (nats)."""
    entropies = []
    for tokens in token_rows:
        counts = np.unique([t for t in tokens if t != eos_id], return_counts=True)[1]
        p = counts / counts.sum()
        entropies.append(-np.sum(p * np.log(p + 1e-10)))
    return np.asarray(entropies)
