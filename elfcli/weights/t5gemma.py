"""Encoders of T5Gemma and T5Gemma 2 in the Hugging Face format, text only."""

import re
from pathlib import Path

import numpy as np

from elfcli.errors import InputError
from elfcli.models.t5gemma import T5GemmaShape
from elfcli.weights.reference import unflatten

T5GEMMA_KINDS = ("t5gemma", "t5_gemma_module", "t5gemma2", "t5gemma2_encoder", "t5gemma2_text")
DEFAULTS = {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "rms_norm_eps": 1e-6,
}  # fmt: skip
"""What transformers assumes if `config.json` does not set it: it does not write what equals these."""
SLIDING, FULL = "sliding_attention", "full_attention"
EOI = "embed_tokens.eoi_embedding"


def t5gemma_shape(config: dict, where: Path) -> T5GemmaShape:
    """Return the encoder shape that `config.json` describes. Raise InputError for a feature that the network lacks."""
    second = config["model_type"].startswith("t5gemma2")
    part = text_config(config)
    for name, expected in (("hidden_activation", "gelu_pytorch_tanh"), ("attention_bias", False)):
        if (value := part.get(name, expected)) != expected:
            raise InputError(f"{where}: {name} {value!r} is not supported in an encoder, only {expected!r}")
    part = DEFAULTS | {"vocab_size": 262_208 if second else 256_000} | part
    layers, window = part["num_hidden_layers"], part["sliding_window"]
    kinds = part.get("layer_types")
    if kinds is None:
        every = part.get("sliding_window_pattern", 6) if second else 2
        kinds = [SLIDING if number % every else FULL for number in range(1, layers + 1)]
    full, sliding = (_rope(part, kind, second, where) for kind in (FULL, SLIDING))
    return T5GemmaShape(
        part["vocab_size"], part["hidden_size"], part["num_attention_heads"], part["num_key_value_heads"],
        part["head_dim"], part["intermediate_size"],
        sliding=tuple(kind == SLIDING for kind in kinds[:layers]),
        window=((window + 1) // 2 - 1, window // 2) if second else (window, window),
        scale=part["query_pre_attn_scalar"] ** -0.5,
        rope_thetas=(full[0], sliding[0]),
        rope_factors=(full[1], sliding[1]),
        softcap=None if second else part.get("attn_logit_softcapping", 50.0),
        qk_norm=second,
        eps=part["rms_norm_eps"],
    )  # fmt: skip


def text_config(config: dict) -> dict:
    """Return the part of `config.json` that describes the text encoder."""
    part = config.get("encoder", config)
    return part.get("text_config", part)


def _rope(part: dict, kind: str, second: bool, where: Path) -> tuple[float, float]:
    """Return (base of the frequencies, divisor of the positions) in layers of a kind; Gemma 3 has two."""
    rope = part.get("rope_parameters") or {}
    if second:
        former = {"rope_theta": part.get("rope_local_base_freq", 1e4)} if kind == SLIDING else {
            "rope_theta": part.get("rope_theta", 1e6), **(part.get("rope_scaling") or {})}  # fmt: skip
        rope = former | (rope.get(kind) or {})
    else:
        rope = {"rope_theta": part.get("rope_theta", 1e4), **rope}
    if (name := rope.get("rope_type", rope.get("type", "default"))) not in ("default", "linear"):
        raise InputError(f"{where}: rope_type {name!r} is not supported in an encoder, only 'default' and 'linear'")
    return float(rope["rope_theta"]), float(rope.get("factor", 1.0)) if name == "linear" else 1.0


def t5gemma_from_huggingface(tensors: dict[str, np.ndarray], shape: T5GemmaShape, eoi: int) -> dict:
    """Return Hugging Face's arrays (kernels transposed, norms without their 1) as our parameters.

    eoi: id of the end-of-image token, which has an embedding of its own.
    """
    tensors = {re.sub(r"^(model\.)?(encoder\.)?(text_model\.)?", "", name): a for name, a in tensors.items()}
    table = tensors["embed_tokens.weight"]
    if EOI in tensors and eoi < len(table):
        table = table.copy()  # what safetensors returns cannot be written to
        table[eoi] = tensors[EOI] / shape.width**0.5
    ours = {"embedding": table, "norm/weight": 1 + tensors["norm.weight"]}
    names = {
        "pre_self_attn_layernorm": "pre_attn_norm", "post_self_attn_layernorm": "post_attn_norm",
        "pre_feedforward_layernorm": "pre_mlp_norm", "post_feedforward_layernorm": "post_mlp_norm",
        "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o",
        "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
    }  # fmt: skip
    if shape.qk_norm:
        names |= {"self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
    for theirs, mine in names.items():
        stacked = np.stack([tensors.pop(f"layers.{i}.{theirs}.weight") for i in range(len(shape.sliding))])
        if mine.endswith("norm"):
            ours[f"blocks/{mine}/weight"] = 1 + stacked
        else:
            ours[f"blocks/{mine}/kernel"] = np.swapaxes(stacked, 1, 2)
    return unflatten(ours)
