"""The frozen encoder that turns tokens into latents: a T5 encoder, or a Gaussian token table (no download)."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from elfcli.config.schema import EncoderSettings
from elfcli.errors import InputError
from elfcli.models.encoder import Encoder, apply_table, t5_encode
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.files import fetch, read_json
from elfcli.weights.reference import t5_from_reference
from elfcli.weights.t5 import load_t5, t5_shape


def load_encoder(
    cfg: EncoderSettings, vocab_size: int, dtype: DTypeLike = jnp.float32, attention: str = "plain"
) -> Encoder:
    """Return the encoder for ids below `vocab_size`. Raise InputError if it is missing or has fewer tokens."""
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
        raise InputError(f"{cfg.encoder_model_name}: this encoder knows {rows} tokens but the tokenizer has "
                         f"{vocab_size}: use its vocabulary, or set encoder_model_name=embedding")  # fmt: skip
    shape = replace(shape, dtype=dtype, attention=attention)
    return Encoder(jax.tree.map(jnp.asarray, params), t5_encode(shape), shape.d_model, rows)
