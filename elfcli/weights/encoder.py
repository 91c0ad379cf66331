"""The frozen encoder that turns tokens into latents: a network of a folder or Hub name, or a Gaussian token table."""

import tomllib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from elfcli.config.presets import presets_dir
from elfcli.config.schema import EncoderSettings
from elfcli.errors import InputError
from elfcli.hub_access import looks_like_a_path
from elfcli.models.encoder import Encoder, apply_table, encode_with
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.models.layers import abstract
from elfcli.models.t5 import T5Shape
from elfcli.models.t5gemma import T5GemmaShape
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.files import fetch, read_json, weights
from elfcli.weights.judges import gpt2_from_huggingface, gpt2_shape
from elfcli.weights.reference import flatten, t5_from_reference
from elfcli.weights.t5 import ENCODER_CLASSES, t5_from_huggingface, t5_shape
from elfcli.weights.t5gemma import T5GEMMA_KINDS, t5gemma_from_huggingface, t5gemma_shape

EncoderShape = T5Shape | T5GemmaShape | Gpt2Shape
ARRAYS = (
    r"(?!.*\.attn\.(masked_)?bias$)(model\.|transformer\.)?"
    r"((shared|wte|wpe|h|ln_f)\.|encoder\.(?!vision_tower|multi_modal)|(text_model\.)?(embed_tokens|layers|norm)\.)"
)
"""Names of the arrays of encoders in files of whole models, of the encoder, or of its text part."""
WHAT = "encoder"


def load_encoder(
    cfg: EncoderSettings, vocab_size: int, dtype: DTypeLike = jnp.float32, attention: str = "plain"
) -> Encoder:
    """Return the encoder for ids below `vocab_size`. Raise InputError if it is missing or has fewer tokens."""
    if cfg.encoder_model_name == "embedding":
        table = jax.random.normal(jax.random.key(cfg.embedding_seed), (vocab_size, cfg.embedding_dim))
        return Encoder(table, apply_table, cfg.embedding_dim, vocab_size)
    shape, params = read_encoder(cfg.encoder_model_name, cfg.encoder_checkpoint)
    if vocab_size > shape.vocab_size:
        raise InputError(f"{cfg.encoder_model_name}: this encoder knows {shape.vocab_size} tokens but the tokenizer "
                         f"has {vocab_size}: use its vocabulary, or set encoder_model_name=embedding")  # fmt: skip
    shape = replace(shape, dtype=dtype, attention=attention)
    return Encoder(jax.tree.map(jnp.asarray, params), encode_with(shape), shape.width, shape.vocab_size)


def known_encoder(name: str) -> EncoderShape | None:
    """Return the shape of an encoder that configs/encoder_sizes.toml lists, by its name on the Hub, else None."""
    path = presets_dir() / "encoder_sizes.toml"
    for family in tomllib.loads(path.read_text(encoding="utf-8")).values():
        for known, sizes in family.pop("names").items():
            if name in (known, known.rpartition("/")[2]):
                return encoder_shape(family | sizes, path)
    return None


def latent_width(cfg: EncoderSettings) -> int:
    """Return the width E of an encoder's latents without reading its weights. Raise InputError if it is missing."""
    name = cfg.encoder_model_name
    if name == "embedding":
        return cfg.embedding_dim
    known = None if looks_like_a_path(name) else known_encoder(name)
    return (known or encoder_config(name)[0]).width


def encoder_config(name: str) -> tuple[EncoderShape, dict]:
    """Return (shape, content) of an encoder's `config.json`, by folder or Hub name."""
    path = fetch(name, "config.json", WHAT)
    config = read_json(path)
    return encoder_shape(config, path), config


def encoder_shape(config: dict, where: Path) -> EncoderShape:
    """Return the shape that `config.json` describes. Raise InputError for a model that is not supported."""
    kind = config.get("model_type")
    if kind in ENCODER_CLASSES:
        return t5_shape(config, where)
    if kind in T5GEMMA_KINDS:
        return t5gemma_shape(config, where)
    if kind == "gpt2":
        return gpt2_shape(config, where)
    raise InputError(f"{where}: a model of type {kind!r} cannot be the encoder; supported types: "
                     f"{', '.join((*ENCODER_CLASSES, 't5gemma', 't5gemma2', 'gpt2'))}")  # fmt: skip


def read_encoder(name: str, pickle: str | None = None) -> tuple[EncoderShape, dict]:
    """Return (shape, parameters) of a folder or Hub name. pickle: the reference's, with the weights to take instead."""
    shape, config = encoder_config(name)
    try:
        params = t5_from_reference(read_encoder_pickle(pickle)) if pickle else _params(name, shape, config)
    except KeyError as error:
        raise InputError(f"{name}: {error} is missing from the weights of this {config['model_type']} model") from None
    table = params["wte" if isinstance(shape, Gpt2Shape) else "embedding"]
    shape = replace(shape, vocab_size=len(table))  # some files have more rows than config.json says
    check_params(params, shape, name)
    return shape, params


def _params(name: str, shape: EncoderShape, config: dict) -> dict:
    tensors = weights(name, WHAT, ARRAYS)
    if isinstance(shape, T5GemmaShape):
        eoi = config.get("encoder", config).get("eoi_token_index", 256_000)
        return t5gemma_from_huggingface(tensors, shape, eoi)
    return (
        gpt2_from_huggingface(tensors, shape.n_layer) if isinstance(shape, Gpt2Shape) else t5_from_huggingface(tensors)
    )


def check_params(params: dict, shape: EncoderShape, name: str) -> None:
    """Raise InputError if an array is missing, is not part of the network, or has another shape."""
    expected = flatten(nnx.to_pure_dict(nnx.state(abstract(shape.network, shape))))
    found = flatten(params)
    for path in sorted(expected.keys() | found.keys()):
        theirs, ours = (tuple(tree[path].shape) if path in tree else "missing" for tree in (found, expected))
        if theirs != ours:
            raise InputError(f"{name}: the encoder's {path} is {theirs} in the weights, but {ours} by its config.json")


def encoder_arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an encoder under the names of its own files, without those of a decoder."""
    arrays = weights(name, WHAT, ARRAYS)
    if "shared.weight" in arrays:
        arrays.pop("encoder.embed_tokens.weight", None)  # the same
    return arrays
