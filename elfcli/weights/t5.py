"""Encoders of T5, mT5, ByT5, Flan-T5 and umT5 in the Hugging Face format."""

import json
import re
from pathlib import Path

import numpy as np

from elfcli.errors import InputError
from elfcli.models.t5 import T5Shape
from elfcli.weights.names import WEIGHTS_FILE
from elfcli.weights.reference import T5_BIAS, T5_BLOCK_NAMES, T5_NAMES, t5_from_reference, t5_to_reference

ENCODER_CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Class of transformers for the encoder alone, by model type."""


def t5_shape(config: dict, where: Path) -> T5Shape:
    """Return the encoder shape that a Hugging Face `config.json` describes. Raise InputError for another kind."""
    model = config.get("model_type")
    kind = config.get("feed_forward_proj", "relu" if model == "t5" else "gated-gelu")
    if model not in ENCODER_CLASSES or kind not in ("relu", "gated-gelu"):
        raise InputError(f"{where}: expected a T5 encoder with relu or gated-gelu, got model_type "
                         f"{model!r}, feed_forward_proj {kind!r}")  # fmt: skip
    names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    try:
        return T5Shape(
            **{name: config[name] for name in names},
            gated=kind == "gated-gelu",
            layer_bias=model == "umt5",
            num_buckets=config.get("relative_attention_num_buckets", 32),
            max_distance=config.get("relative_attention_max_distance", 128),
            eps=config.get("layer_norm_epsilon", 1e-6),
        )
    except KeyError as error:
        raise InputError(f"{where}: {error} is missing") from None


def _huggingface_name(path: str) -> str:
    """Return Hugging Face's name of an array of the reference's tree."""
    name = re.sub(r"(block|layer)_(\d+)", r"\1.\2", path).replace("/", ".")
    return re.sub(r"((rel_)?embedding|kernel)$", "weight", name)


def t5_from_huggingface(tensors: dict[str, np.ndarray]) -> dict:
    """Return Hugging Face's T5 arrays (kernels transposed) as our parameters."""
    blocks = {match[1] for name in tensors if (match := re.match(r"encoder\.block\.(\d+)\.", name))}
    paths = [*T5_NAMES.values(), *(f"encoder/block_{i}/{path}" for i in blocks for path in T5_BLOCK_NAMES.values()),
             *map(T5_BIAS.format, blocks)]  # fmt: skip
    if "encoder.embed_tokens.weight" in tensors:
        tensors = {"shared.weight": tensors["encoder.embed_tokens.weight"], **tensors}
    arrays = {path: tensors[name] for path in paths if (name := _huggingface_name(path)) in tensors}
    return t5_from_reference({path: a.T if path.endswith("kernel") else a for path, a in arrays.items()})


def t5_config(shape: T5Shape, pad_id: int, eos_id: int) -> dict:
    """Return the `config.json` that Hugging Face reads as an encoder of this shape. `t5_shape` is the inverse."""
    names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        **{name: getattr(shape, name) for name in names},
        "feed_forward_proj": "gated-gelu" if shape.gated else "relu",
        "relative_attention_num_buckets": shape.num_buckets,
        "relative_attention_max_distance": shape.max_distance,
        "layer_norm_epsilon": shape.eps,
        "dropout_rate": 0.0,
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": pad_id,
        "eos_token_id": eos_id,
    }


def t5_to_huggingface(params: dict) -> dict[str, np.ndarray]:
    """Return our T5 parameters as Hugging Face's arrays. `t5_from_huggingface` is the inverse."""
    flat = {path: array.T if path.endswith("kernel") else array for path, array in t5_to_reference(params).items()}
    return {_huggingface_name(path): array for path, array in flat.items()}


def save_encoder(folder: Path, config: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write `config.json` and `model.safetensors` of an encoder, as `read_encoder` and transformers read them."""
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    save_file(arrays, folder / WEIGHTS_FILE, {"format": "pt"})
