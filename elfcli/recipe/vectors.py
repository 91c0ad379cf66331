"""The folder of token vectors in a data folder."""

import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from elfcli.data.folder import Examples, recorded_tokenizer
from elfcli.data.tokenizers import eos_id, load_tokenizer, pad_id, vocab_size
from elfcli.errors import InputError
from elfcli.models.layers import abstract
from elfcli.models.t5 import T5Encoder, T5Shape
from elfcli.outputs import folder_written_whole
from elfcli.recipe.cooccurrence import VECTOR_WIDTH, token_vectors
from elfcli.runs.folder import LATENTS_FILE, TEXT_VECTORS_FOLDER, VECTORS_FOLDER
from elfcli.ui.progress import say
from elfcli.weights.t5 import save_encoder, t5_config, t5_to_huggingface


def vectors_folder(examples: Examples) -> Path:
    """Return the folder of the data's token vectors, whether or not it exists."""
    paired = examples.tokens.condition_input_ids is not None
    return Path(examples.path).absolute() / (VECTORS_FOLDER if paired else TEXT_VECTORS_FOLDER)


def will_be_vectors(encoder: str) -> bool:
    """Return whether an encoder's name is the folder of token vectors that are not computed yet."""
    return Path(encoder).name in (VECTORS_FOLDER, TEXT_VECTORS_FOLDER) and not (Path(encoder) / "config.json").is_file()


def make_vectors(examples: Examples) -> Path:
    """Return the folder of the data's token vectors, after computing and writing it if it is missing (seconds).

    It holds a T5 encoder whose only block adds nothing, so that transformers and exports can read it. Raises InputError
    if the folder cannot be written.
    """
    folder = vectors_folder(examples)
    if (folder / "config.json").is_file():
        return folder
    say(f"computing token vectors from co-occurrence in {examples.path}")
    tokenizer = load_tokenizer(recorded_tokenizer(examples))
    shape = T5Shape(vocab_size(tokenizer), VECTOR_WIDTH, d_kv=8, d_ff=8, num_layers=1, num_heads=1, gated=True)
    network = nnx.to_pure_dict(nnx.state(abstract(T5Encoder, shape)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), network)
    for norm in (params["final_norm"], params["blocks"]["attn_norm"], params["blocks"]["mlp_norm"]):
        norm["weight"] += 1
    params["embedding"] = token_vectors(examples.tokens, shape.vocab_size, seed=0)
    report = {"vocab_size": shape.vocab_size, "made_of": "co-occurrence", "data_fingerprint": examples.fingerprint}
    try:
        with folder_written_whole(folder) as new:
            save_encoder(new, t5_config(shape, pad_id(tokenizer), eos_id(tokenizer)), t5_to_huggingface(params))
            tokenizer.save_pretrained(str(new))
            (new / LATENTS_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return folder
