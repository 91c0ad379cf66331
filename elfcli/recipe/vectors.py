"""The folder of token vectors beside the data."""

from pathlib import Path

import jax
import numpy as np

from elfcli.data.folder import Examples, recorded_tokenizer
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.models.t5 import T5Shape
from elfcli.recipe.cooccurrence import WIDTH, token_vectors
from elfcli.runs.folder import VECTORS_FOLDER
from elfcli.training.masked import t5_params
from elfcli.ui.progress import say


def vectors_folder(examples: Examples) -> Path:
    return Path(examples.path).absolute() / VECTORS_FOLDER


def make_vectors(examples: Examples) -> Path:
    """The folder of the data's token vectors, which is written where it is missing: seconds.

    It is a T5 encoder whose only block adds nothing, so that transformers and exports know it. InputError where
    the folder cannot be written.
    """
    folder = vectors_folder(examples)
    if (folder / "config.json").is_file():
        return folder
    from elfcli.training.encoder import write_encoder

    say(f"making token vectors from what occurs together in {examples.path}")
    tokenizer = load_tokenizer(recorded_tokenizer(examples))
    shape = T5Shape(vocab_size(tokenizer), WIDTH, d_kv=8, d_ff=8, num_layers=1, num_heads=1, gated=True)
    params = jax.tree.map(np.zeros_like, jax.device_get(t5_params(shape, jax.random.key(0))))
    for norm in (params["final_norm"], params["blocks"]["attn_norm"], params["blocks"]["mlp_norm"]):
        norm["weight"] += 1
    params["embedding"] = token_vectors(examples.tokens, shape.vocab_size, seed=0)
    report = {"vocab_size": shape.vocab_size, "made_of": "co-occurrence", "data_fingerprint": examples.fingerprint}
    write_encoder(folder, shape, params, tokenizer, report)
    return folder
