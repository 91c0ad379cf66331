"""The frozen encoder that turns tokens into latents: a T5 encoder, or a Gaussian token table (no download)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from elfcli.config.schema import Encoder as EncoderConfig
from elfcli.errors import InputError
from elfcli.hub.files import read_encoder_pickle
from elfcli.hub.pretrained import fetch, load_t5, read_json, t5_shape
from elfcli.hub.reference import t5_from_reference
from elfcli.models.layers import graphdef_of
from elfcli.models.t5 import T5Encoder, T5Shape


@dataclass(frozen=True)
class Encoder:
    """`apply(params, ids (B, S), mask (B, S, S)) -> latents (B, S, dim)`, float32, before normalisation."""

    params: Any
    apply: Callable
    dim: int
    vocab_size: int  # ids that it can take


def load_encoder(cfg: EncoderConfig, vocab_size: int, dtype=jnp.float32, attention: str = "plain") -> Encoder:
    """The encoder of the settings for ids below `vocab_size`. InputError where it cannot be had or is too small."""
    if cfg.encoder_model_name == "embedding":
        table = jax.random.normal(jax.random.key(cfg.embedding_seed), (vocab_size, cfg.embedding_dim))
        return Encoder(table, apply_table, cfg.embedding_dim, vocab_size)
    if cfg.encoder_checkpoint is not None:
        config_path = fetch(cfg.encoder_model_name, "config.json", "T5 encoder")
        shape = t5_shape(read_json(config_path), config_path)
        params = t5_from_reference(read_encoder_pickle(cfg.encoder_checkpoint))
    else:
        shape, params = load_t5(cfg.encoder_model_name)
    rows = params["embedding"].shape[0]
    if vocab_size > rows:
        raise InputError(
            f"{cfg.encoder_model_name}: this encoder knows {rows} tokens but the tokenizer has {vocab_size}; "
            f"tokenize with the encoder's own vocabulary, or set encoder_model_name=embedding"
        )
    shape = replace(shape, dtype=dtype, attention=attention)
    return Encoder(jax.tree.map(jnp.asarray, params), partial(apply_t5, shape), shape.d_model, rows)


def apply_table(table, ids_BxS, mask_BxSxS):
    return table[ids_BxS]


def apply_t5(shape: T5Shape, params, ids_BxS, mask_BxSxS):
    return nnx.merge(graphdef_of(T5Encoder, shape), params)(ids_BxS, mask_BxSxS)
