"""Loads the judges of generative perplexity from a Hugging Face folder or by Hub name: GPT-2, Llama, Qwen 2 and 3."""

from pathlib import Path

import numpy as np

from elfcli.errors import InputError
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.models.llama import LlamaShape
from elfcli.weights.files import fetch, read_json, weights
from elfcli.weights.reference import unflatten

LLAMA_KINDS = ("llama", "qwen2", "qwen3")
WHAT = "judge"


def load_judge_network(name: str) -> tuple[Gpt2Shape | LlamaShape, dict]:
    """Return (shape, parameters) of a folder or Hub name. Raise InputError for another kind of model."""
    path = fetch(name, "config.json", WHAT)
    config = read_json(path)
    kind = config.get("model_type")
    try:
        if kind == "gpt2":
            shape = gpt2_shape(config, path)
            return shape, gpt2_from_huggingface(weights(name, WHAT), shape.n_layer)
        if kind in LLAMA_KINDS:
            llama = llama_shape(config, path)
            return llama, llama_from_huggingface(weights(name, WHAT), llama)
    except KeyError as error:
        raise InputError(f"{name}: {error} is missing from this {kind} model") from None
    kinds = ", ".join(("gpt2", *LLAMA_KINDS))
    raise InputError(f"{path}: a model of type {kind!r} cannot be the judge; supported types: {kinds}")


def gpt2_shape(config: dict, where: Path) -> Gpt2Shape:
    """Return the shape that `config.json` describes. Raise InputError for another activation than gelu_new."""
    if config.get("activation_function", "gelu_new") != "gelu_new":
        raise InputError(f"{where}: expected a GPT-2 with gelu_new, got {config['activation_function']!r}")
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    return Gpt2Shape(
        **{name: config[name] for name in names},
        n_inner=config.get("n_inner") or 4 * config["n_embd"],
        eps=config.get("layer_norm_epsilon", 1e-5),
    )


def llama_shape(config: dict, where: Path) -> LlamaShape:
    """Return the shape that `config.json` describes. Raise InputError for a feature that the network does not have."""
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    window, heads = config["max_position_embeddings"], config["num_attention_heads"]
    if config.get("use_sliding_window"):
        window = min(window, config.get("sliding_window") or window)
    for name, value, expected in (
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        ("rope_type", kind, "default"),
        ("attention_bias", bool(config.get("attention_bias")), False),
        ("mlp_bias", bool(config.get("mlp_bias")), False),
    ):
        if value != expected:
            raise InputError(f"{where}: {name} {value!r} is not supported in a judge, only {expected!r}")
    return LlamaShape(
        config["vocab_size"], window, config["hidden_size"], config["num_hidden_layers"], heads,
        n_kv_head=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        n_inner=config["intermediate_size"],
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        eps=config.get("rms_norm_eps", 1e-6),
        qkv_bias=config["model_type"] == "qwen2",
        qk_norm=config["model_type"] == "qwen3",
        tied=bool(config.get("tie_word_embeddings", False)),
    )  # fmt: skip


def llama_from_huggingface(tensors: dict[str, np.ndarray], shape: LlamaShape) -> dict:
    """Return Hugging Face's arrays (kernels transposed) as our parameters; those stacked leave `tensors` (memory)."""
    ours = {"embedding": tensors["model.embed_tokens.weight"], "norm/weight": tensors["model.norm.weight"]}
    if not shape.tied:
        ours["head"] = tensors["lm_head.weight"]
    names = {"input_layernorm": "attn_norm", "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v",
             "self_attn.o_proj": "o", "post_attention_layernorm": "mlp_norm", "mlp.gate_proj": "gate",
             "mlp.up_proj": "up", "mlp.down_proj": "down"}  # fmt: skip
    if shape.qk_norm:
        names |= {"self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}

    def stacked(theirs: str, kind: str) -> np.ndarray:
        return np.stack([tensors.pop(f"model.layers.{i}.{theirs}.{kind}") for i in range(shape.n_layer)])

    for theirs, mine in names.items():
        if mine.endswith("norm"):
            ours[f"blocks/{mine}/weight"] = stacked(theirs, "weight")
        else:
            ours[f"blocks/{mine}/kernel"] = np.swapaxes(stacked(theirs, "weight"), 1, 2)
        if shape.qkv_bias and mine in ("q", "k", "v"):
            ours[f"blocks/{mine}/bias"] = stacked(theirs, "bias")
    return unflatten(ours)


def gpt2_from_huggingface(tensors: dict[str, np.ndarray], num_layers: int) -> dict:
    """Return GPT-2's arrays (its Conv1D kernels are not transposed) as our parameters; stacked ones leave `tensors`."""
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)
    ours = {"wte": tensors["wte.weight"], "wpe": tensors["wpe.weight"]}
    ours |= {"ln_f/scale": tensors["ln_f.weight"], "ln_f/bias": tensors["ln_f.bias"]}
    names = {"ln_1": "ln_1", "attn.c_attn": "c_attn", "attn.c_proj": "c_proj", "ln_2": "ln_2", "mlp.c_fc": "c_fc",
             "mlp.c_proj": "mlp_proj"}  # fmt: skip
    for theirs, mine in names.items():
        for kind in ("weight", "bias"):
            leaf = {"bias": "bias", "weight": "scale" if mine.startswith("ln") else "kernel"}[kind]
            ours[f"blocks/{mine}/{leaf}"] = np.stack([tensors.pop(f"h.{i}.{theirs}.{kind}") for i in range(num_layers)])
    return unflatten(ours)
