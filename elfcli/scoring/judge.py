"""The evaluator model of perplexity and MAUVE: loading it and applying it to rows of tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import InputError
from elfcli.hub_access import hub_reachable, looks_like_a_path
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.models.layers import graphdef_of
from elfcli.models.llama import LlamaShape
from elfcli.parallel.agree import assert_same_on_all
from elfcli.parallel.hashes import digest, tree_hash
from elfcli.parallel.mesh import by_row, make_mesh, round_up_to_devices
from elfcli.weights.files import fetch
from elfcli.weights.judges import load_judge_network

Shape = Gpt2Shape | LlamaShape


PADDED_LENGTHS = tuple(length for k in range(5, 20) for length in (2**k, 2**k + 2 ** (k - 1)))


@dataclass(frozen=True)
class Judge:
    """The defaults are the paper's. model: a GPT-2, Llama or Qwen in a folder or on the Hub. tokenizer: by default the
    one beside it. Texts are cut at `max_length` tokens, or at the model's own window where that is shorter. dtype: of
    the matrix products, float32 or bfloat16."""

    model: str = "gpt2-large"
    tokenizer: str | None = None
    batch_size: int = 8
    max_length: int = 1024
    dtype: str = "float32"


def not_empty(texts: Sequence[str]) -> list[str]:
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise InputError(f"all {len(texts)} texts are empty: nothing to score")
    return kept


def token_rows(tokenizer, texts: list[str], window: int) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, truncation=True, max_length=window)["input_ids"]


@lru_cache(maxsize=1)
def load_judge(model: str, tokenizer: str | None) -> tuple[Any, Shape, dict, str]:
    """(tokenizer, shape, weights, their hash) of the judge, which stays in memory for the next setting's texts.

    InputError where it cannot be loaded, or does not fit the tokenizer.
    """
    judge_tokenizer = load_judge_tokenizer(model, tokenizer)
    shape, params = load_judge_network(model)
    if vocab_size(judge_tokenizer) > shape.vocab_size:
        raise InputError(
            f"{tokenizer or model}: a tokenizer of {vocab_size(judge_tokenizer)} tokens, but the model {model} knows "
            f"{shape.vocab_size}; give the model's own with --tokenizer"
        )
    return judge_tokenizer, shape, params, tree_hash(params)


def load_judge_tokenizer(model: str, tokenizer: str | None):
    """The tokenizer named, or the one beside the model; a missing model is reported first."""
    if not looks_like_a_path(model) and not in_cache(model) and not hub_reachable():
        raise InputError(
            f"{model}: neither a folder nor in the cache, and the Hugging Face Hub cannot be reached; "
            "give a local GPT-2 folder with --model"
        )
    fetch(model, "config.json", "judge")
    name = tokenizer or (model if looks_like_a_path(model) else model.partition("@")[0])
    found = load_tokenizer(name)
    # From a folder with a config but no vocabulary, transformers makes a tokenizer that knows only its end token.
    if vocab_size(found) <= len(found.all_special_tokens):
        raise InputError(f"{name}: no tokenizer in it (no vocab.json); give GPT-2's with --tokenizer")
    return found


def in_cache(model: str) -> bool:
    """Whether the cache of the Hugging Face Hub holds the model's config."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repo, _, revision = model.partition("@")
    try:
        return isinstance(try_to_load_from_cache(repo, "config.json", revision=revision or None), str | Path)
    except HFValidationError as error:
        raise InputError(f"{model}: neither a folder nor a Hub name ({' '.join(str(error).split())})") from None


def row_batches(rows: Sequence[Sequence[int]], *, eos_id: int, window: int, batch_size: int) -> Iterator[tuple]:
    """(places of its rows, ids (B, T) padded with eos, mask (B, T)) of each batch, longest rows first."""
    longest_first = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    assert_same_on_all("texts", {"texts": len(rows), "hash": digest(rows)})
    batch_size = round_up_to_devices(min(batch_size, len(rows)))
    for first in range(0, len(rows), batch_size):
        part = longest_first[first : first + batch_size]
        length = padded_length(len(rows[part[0]]), window)
        # A short last batch is filled up with rows of eos, so that it needs no compilation of its own.
        ids_BxT = np.full((batch_size, length), eos_id, np.int32)
        mask_BxT = np.zeros((batch_size, length), bool)
        for place, row in enumerate(part):
            ids_BxT[place, : len(rows[row])] = rows[row]
            mask_BxT[place, : len(rows[row])] = True
        yield part, ids_BxT, mask_BxT


def padded_length(length: int, window: int) -> int:
    """The smallest of a few lengths with room for an eos after the text (it is scored), at most the window."""
    return next((padded for padded in PADDED_LENGTHS if length < padded < window), window)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _applied(head: Callable, shape: Shape, mesh: Mesh, params, ids_BxT, mask_BxT):
    model = nnx.merge(graphdef_of(shape.network, shape), params)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        found = head(model, ids_BxT, mask_BxT)
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))


def apply_judge(head: Callable, shape: Shape, params, ids_BxT, mask_BxT) -> jax.Array:
    """head(network, ids (B, T) int32, mask (B, T) bool) of a batch, computed by all devices and whole on each of them.

    head: a function of a module, which is compiled once for each shape. B must be a multiple of the devices.
    """
    mesh = make_mesh()
    ids, mask = by_row(np.asarray(ids_BxT, np.int32), mesh), by_row(np.asarray(mask_BxT, bool), mesh)
    with jax.default_matmul_precision("highest"):  # accelerators would round float32 products otherwise
        return _applied(head, shape, mesh, params, ids, mask)
