"""The evaluator model of perplexity and MAUVE: loading it and applying it to rows of tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import InputError
from elfcli.hub_access import looks_like_a_path
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.models.layers import graphdef_of
from elfcli.models.llama import LlamaShape
from elfcli.parallel.agree import assert_same_on_all
from elfcli.parallel.hashes import digest, tree_hash
from elfcli.parallel.mesh import by_row, everywhere, jit_on_mesh, make_mesh, round_up_to_devices
from elfcli.weights.files import fetch
from elfcli.weights.judges import load_judge_network

Shape = Gpt2Shape | LlamaShape
NGRAM = "ngram"
"""Name of the judge that needs no download: an n-gram model of a data folder's training texts (scoring/ngram.py)."""
PADDED_LENGTHS = tuple(length for k in range(5, 20) for length in (2**k, 2**k + 2 ** (k - 1)))


@dataclass(frozen=True)
class Judge:
    """An evaluator model, a GPT-2, Llama or Qwen in a folder or on the Hub, or NGRAM; the defaults are the paper's.
    tokenizer: None: the model's, or the data's. max_length: tokens at which texts are truncated, if the window is not
    shorter. dtype: of the matrix products. data: folder whose training texts an n-gram judge counts."""

    model: str = "gpt2-large"
    tokenizer: str | None = None
    batch_size: int = 8
    max_length: int = 1024
    dtype: str = "float32"
    data: str | None = None


def not_empty(texts: Sequence[str]) -> list[str]:
    """Return the texts that are not empty. Raises InputError if all are."""
    full = [text for text in texts if text.strip()]
    if not full:
        raise InputError(f"all {len(texts)} texts are empty: nothing to score")
    return full


def token_rows(tokenizer: Any, texts: list[str], window: int) -> list[list[int]]:
    """Return the token ids of texts, truncated to the window."""
    return tokenizer(texts, add_special_tokens=False, truncation=True, max_length=window)["input_ids"]


@lru_cache(maxsize=1)
def load_judge(model: str, tokenizer: str | None) -> tuple[Any, Shape, dict, str]:
    """Return (tokenizer, shape, weights, their hash), kept in memory. Raises InputError if they do not load or fit."""
    judge_tokenizer = load_judge_tokenizer(model, tokenizer)
    shape, params = load_judge_network(model)
    if (tokens := vocab_size(judge_tokenizer)) > shape.vocab_size:
        raise InputError(f"{tokenizer or model}: a tokenizer of {tokens} tokens, but the model {model} has "
                         f"{shape.vocab_size}; pass the model's tokenizer with --tokenizer")  # fmt: skip
    return judge_tokenizer, shape, params, tree_hash(params)


def load_judge_tokenizer(model: str, tokenizer: str | None) -> Any:
    """Return the tokenizer of this name, None: the model's. A missing model is reported first."""
    fetch(model, "config.json", "judge (--model)")
    name = tokenizer or (model if looks_like_a_path(model) else model.partition("@")[0])
    loaded = load_tokenizer(name)
    # From a folder with a config but no vocabulary, transformers makes a tokenizer that knows only its end token.
    if vocab_size(loaded) <= len(loaded.all_special_tokens):
        raise InputError(f"{name}: no tokenizer in it (no vocab.json); pass GPT-2's with --tokenizer")
    return loaded


def row_batches(
    rows: Sequence[Sequence[int]], *, eos_id: int, window: int, batch_size: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yield (indices of its rows, ids (B, T) padded with eos, mask (B, T)) of each batch, longest rows first."""
    longest_first = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    assert_same_on_all("texts", {"texts": len(rows), "hash": digest(rows)})
    batch_size = round_up_to_devices(min(batch_size, len(rows)))
    for first in range(0, len(rows), batch_size):
        part = longest_first[first : first + batch_size]
        # A short last batch is filled up with rows of eos, so that it needs no other compilation.
        shape = batch_size, padded_length(len(rows[part[0]]), window)
        ids_BxT, mask_BxT = np.full(shape, eos_id, np.int32), np.zeros(shape, bool)
        for b, row in enumerate(part):
            ids_BxT[b, : len(rows[row])] = rows[row]
            mask_BxT[b, : len(rows[row])] = True
        yield part, ids_BxT, mask_BxT


def padded_length(length: int, window: int) -> int:
    """Return the smallest of a few lengths with room for an eos after the text (it is scored), at most the window."""
    return next((padded for padded in PADDED_LENGTHS if length < padded < window), window)


class JudgeStatics(NamedTuple):
    """Static arguments of a judge's program. head: a function of the network, ids and mask."""

    head: Callable
    shape: Shape
    mesh: Mesh


@jit_on_mesh
def _applied(program: JudgeStatics, params: Any, ids_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    model = nnx.merge(graphdef_of(program.shape.network, program.shape), params)
    return everywhere(program, program.head(model, ids_BxT, mask_BxT))


def apply_judge(head: Callable, shape: Shape, params: Any, ids_BxT: np.ndarray, mask_BxT: np.ndarray) -> jax.Array:
    """Return head(network, ids (B, T) int32, mask (B, T) bool), computed by all devices and whole on each of them.
    head: a function of a module, compiled once per shape. B must be a multiple of the number of devices."""
    mesh = make_mesh()
    ids, mask = by_row(np.asarray(ids_BxT, np.int32), mesh), by_row(np.asarray(mask_BxT, bool), mesh)
    with jax.default_matmul_precision("highest"):  # accelerators would round float32 products otherwise
        return _applied(JudgeStatics(head, shape, mesh), params, ids, mask)
