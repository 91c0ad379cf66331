"""T5 encoders in the Hugging Face format."""

import json
import re
from pathlib import Path

import numpy as np

from elfcli.errors import InputError
from elfcli.models.t5 import T5Shape
from elfcli.weights.files import fetch, read_json, weights
from elfcli.weights.names import WEIGHTS_FILE
from elfcli.weights.reference import T5_BLOCK_NAMES, T5_NAMES, t5_from_reference, t5_to_reference


def t5_shape(config: dict, where: Path) -> T5Shape:
    """Return the encoder shape that a Hugging Face `config.json` describes. Raise InputError for another kind."""
    kind = config.get("feed_forward_proj", "relu")
    if config.get("model_type") not in ("t5", "mt5") or kind not in ("relu", "gated-gelu"):
        raise InputError(f"{where}: expected a T5 encoder with relu or gated-gelu, got model_type "
                         f"{config.get('model_type')!r}, feed_forward_proj {kind!r}")  # fmt: skip
    names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    try:
        return T5Shape(
            **{name: config[name] for name in names},
            gated=kind == "gated-gelu",
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
    paths = [*T5_NAMES.values(), *(f"encoder/block_{i}/{path}" for i in blocks for path in T5_BLOCK_NAMES.values())]
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


def save_t5(folder: Path, config: dict, params: dict) -> None:
    """Write `config.json` and `model.safetensors` of a T5 encoder, as `load_t5` and transformers read them."""
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    flat = {path: array.T if path.endswith("kernel") else array for path, array in t5_to_reference(params).items()}
    arrays = {_huggingface_name(path): np.ascontiguousarray(array) for path, array in flat.items()}
    save_file(dict(sorted(arrays.items())), folder / WEIGHTS_FILE, {"format": "pt"})


def load_t5(name: str) -> tuple[T5Shape, dict]:
    """Return (shape, parameters) of a T5 encoder folder or Hub name."""
    config_path = fetch(name, "config.json", "T5 encoder")
    return t5_shape(read_json(config_path), config_path), t5_from_huggingface(weights(name, "T5 encoder"))
