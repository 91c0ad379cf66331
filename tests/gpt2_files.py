"""Random GPT-2 models written as Hugging Face writes them, to judge texts by in tests."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import GPT2_TOKENIZER
from safetensors.numpy import save_file


def write_gpt2(folder: Path, vocab_size: int, window: int, width: int = 16, seed: int = 0) -> Path:
    """A random GPT-2 of two layers, in Hugging Face's format."""
    rng = np.random.default_rng(seed)
    shapes = {"wte.weight": (vocab_size, width), "wpe.weight": (window, width)}
    for i in range(2):
        shapes |= {f"h.{i}.{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        for name, out, into in (("attn.c_attn", 3, 1), ("attn.c_proj", 1, 1), ("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4)):
            shapes |= {f"h.{i}.{name}.weight": (into * width, out * width), f"h.{i}.{name}.bias": (out * width,)}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "gpt2", "vocab_size": vocab_size, "n_positions": window, "n_embd": width, "n_layer": 2,
              "n_head": 4, "activation_function": "gelu_new"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_judge(folder: Path, window: int = 64) -> Path:
    """A random GPT-2 with GPT-2's own tokenizer; skips the test where that is not there."""
    if not GPT2_TOKENIZER.is_dir():
        pytest.skip("no GPT-2 tokenizer beside the checkout")
    write_gpt2(folder, 50257, window)
    for file in GPT2_TOKENIZER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
