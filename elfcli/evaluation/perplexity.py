"""Generative perplexity and unigram entropy as the reference (github.com/lillian039/ELF) computes them; GPT-2 judges.

Texts are scored longest first, padded to a few lengths, so that short ones cost little and few programs are compiled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from elfcli.data.tokenizers import eos_id, load_tokenizer, vocab_size
from elfcli.errors import ElfError, InputError
from elfcli.evaluation.bootstrap import Draws, interval, resampled
from elfcli.evaluation.protocol import is_gpt2_large, protocol_part
from elfcli.evaluation.samples import Score
from elfcli.hub_access import hub_reachable, looks_like_a_path
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.models.layers import graphdef_of
from elfcli.models.llama import LlamaShape
from elfcli.parallel.agree import everyone, require_same
from elfcli.parallel.hashes import digest, tree_hash
from elfcli.parallel.mesh import by_row, make_mesh, on_devices, round_up_to_devices
from elfcli.weights.files import fetch
from elfcli.weights.judges import load_judge_network

Shape = Gpt2Shape | LlamaShape
GPT2_VOCABULARY = "7fc3f1df6887d8d0"
"""`digest` of GPT-2's tokens in the order of their ids."""
PADDED_LENGTHS = tuple(length for k in range(5, 20) for length in (2**k, 2**k + 2 ** (k - 1)))


@dataclass(frozen=True)
class PerplexityResult(Score, metric="ppl", value="ppl"):
    """ppl: exp(NLL per scored token), pooled. entropy: unigram, nats, mean over texts. num_tokens: scored tokens.

    num_samples: texts scored, the empty ones left out. max_length: tokens at which texts were cut. intervals: of the
    entropy.
    """

    ppl: float
    entropy: float
    num_samples: int
    num_skipped_empty: int
    num_tokens: int
    model: str
    max_length: int
    signature: str = ""
    intervals: dict = field(default_factory=dict)
    resampled: Draws = field(default=(), repr=False, compare=False)


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


def perplexity(
    texts: Sequence[str], judge: Judge = Judge(), update: Callable[[int], None] = lambda done: None
) -> PerplexityResult:
    """Scores texts. update(done): called with the number of texts that are done.

    InputError for a model that cannot be loaded or does not fit its tokenizer, and where all texts are empty.
    """
    kept = not_empty(texts)
    if judge.max_length < 2:
        raise InputError(
            f"max_length {judge.max_length}: a text's first token is never scored, so 2 or more are needed"
        )
    judge_tokenizer, shape, params, weights = everyone(partial(load_judge, judge.model, judge.tokenizer))
    window, eos = min(judge.max_length, shape.n_positions), eos_id(judge_tokenizer)
    rows = token_rows(judge_tokenizer, kept, window)
    skipped = len(texts) - len(kept)
    score = partial(score_tokens, replace(shape, dtype=jnp.dtype(judge.dtype)), on_devices(params))
    nll, counts = row_totals(
        score, rows, eos_id=eos, window=window, batch_size=judge.batch_size, update=lambda done: update(skipped + done)
    )
    value = everyone(lambda: pooled(nll, counts, judge.model))
    entropies = unigram_entropies(rows, eos)
    values, entropy_draws = spread(texts, nll, counts, entropies)
    name, vocabulary = (Path(n.rstrip("/")).name for n in (judge.model, judge.tokenizer or judge.model))
    signature = (
        f"metric:ppl|{protocol_part(departures(judge, judge_tokenizer, shape))}"
        f"|version:transformers {version('transformers')}|judge:{name}|weights:{weights[:16]}"
        f"|dtype:{judge.dtype}|window:{window}|retokenised:{vocabulary}|eos:first scored|empty:skipped"
    )
    return PerplexityResult(value, float(entropies.mean()), len(kept), skipped, int(counts.sum()), judge.model,
                            window,
                            signature, {"entropy": interval(entropy_draws)}, values)  # fmt: skip


def departures(judge: Judge, tokenizer, shape: Shape) -> list[str]:
    """The parts of the signature in which a judge is not the paper's. shape: of the network."""
    tokens = tokenizer.get_vocab()
    same = {
        "judge": is_gpt2_large(judge.model, shape),
        "dtype": judge.dtype == Judge.dtype,
        "window": min(judge.max_length, shape.n_positions) == Judge.max_length,
        "retokenised": digest(sorted(tokens, key=tokens.__getitem__)) == GPT2_VOCABULARY,
    }
    return [part for part, holds in same.items() if not holds]


def not_empty(texts: Sequence[str]) -> list[str]:
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise InputError(f"all {len(texts)} texts are empty: nothing to score")
    return kept


def token_rows(tokenizer, texts: list[str], window: int) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, truncation=True, max_length=window)["input_ids"]


def entropy(texts: Sequence[str], tokenizer: str, max_length: int = 1024) -> float:
    """Mean unigram entropy (nats) of the texts that are not empty; InputError where all are."""
    vocabulary = load_judge_tokenizer(tokenizer, None)
    rows = token_rows(vocabulary, not_empty(texts), max_length)
    return float(unigram_entropies(rows, eos_id(vocabulary)).mean())


def spread(texts: Sequence[str], nll_R, counts_R, entropies_R) -> tuple[np.ndarray, np.ndarray]:
    """(perplexity, entropy) of the bootstrap's draws of all texts, also the empty ones, which add nothing."""
    parts_NxK = np.zeros((len(texts), 4))
    parts_NxK[[bool(text.strip()) for text in texts]] = np.stack(
        [nll_R, counts_R, entropies_R, np.ones(len(nll_R))], axis=1
    )
    draws_RxK = resampled(
        parts_NxK, lambda sums: np.stack([np.exp(sums[:, 0] / sums[:, 1]), sums[:, 2] / sums[:, 3]], axis=1)
    ).reshape(-1, 2)
    return draws_RxK[:, 0], draws_RxK[:, 1]


@lru_cache(maxsize=2)
def real_text_score(texts: tuple[str, ...], judge: Judge) -> dict:
    """Perplexity and entropy of real text, to stand beside those of samples."""
    found = perplexity(texts, judge)
    return {"ppl": found.ppl, "entropy": found.entropy, "num_samples": found.num_samples}


def pooled(nll_R: np.ndarray, counts_R: np.ndarray, model: str) -> float:
    """Perplexity over all rows."""
    if not counts_R.sum():
        raise InputError("the texts hold nothing but end-of-text tokens: nothing to score")
    value = float(np.exp(nll_R.sum() / counts_R.sum()))
    if not np.isfinite(value):
        raise ElfError(f"{model}: the perplexity comes out as {value}; its weights are damaged or no language model's")
    return value


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


def row_totals(
    score: Callable,
    rows: Sequence[Sequence[int]],
    *,
    eos_id: int,
    window: int,
    batch_size: int,
    update: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """(NLL, number of scored tokens), each (R,), of R token rows of at most `window` tokens, whatever the batch size.

    score(ids (B, T), mask (B, T), eos_id): as `score_tokens`.
    """
    nll_R, counts_R = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    done = 0
    for part, ids_BxT, mask_BxT in row_batches(rows, eos_id=eos_id, window=window, batch_size=batch_size):
        nll, scored = score(ids_BxT, mask_BxT, eos_id)
        nll_R[part] = np.where(scored, nll, 0.0).sum(axis=1)[: len(part)]
        counts_R[part] = scored.sum(axis=1)[: len(part)]
        done += len(part)
        update(done)
    return nll_R, counts_R


def row_batches(rows: Sequence[Sequence[int]], *, eos_id: int, window: int, batch_size: int) -> Iterator[tuple]:
    """(places of its rows, ids (B, T) padded with eos, mask (B, T)) of each batch, longest rows first."""
    longest_first = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    require_same("texts", {"texts": len(rows), "hash": digest(rows)})
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


def next_nll(model, ids_BxT, mask_BxT):
    """Negative log-likelihood (B, T-1) of each next token."""
    return model.nll(model(ids_BxT, mask_BxT), jnp.roll(ids_BxT, -1, axis=1))[:, :-1]


def score_tokens(shape: Shape, params, ids_BxT, mask_BxT, eos_id: int):
    """(NLL, scored), both (B, T-1), of each next token; a target counts unless it is an eos after the row's first.

    B must be a multiple of the devices.
    """
    nll = apply_judge(next_nll, shape, params, ids_BxT, mask_BxT)
    is_eos = np.asarray(ids_BxT) == eos_id
    first_eos = is_eos & (np.cumsum(is_eos, axis=1) == 1)
    return np.asarray(nll, np.float64), (~is_eos | first_eos)[:, 1:]


def unigram_entropies(token_rows, eos_id: int) -> np.ndarray:
    """-sum p ln(p + 1e-10) of each row's unigram distribution, eos excluded (nats)."""
    entropies = []
    for tokens in token_rows:
        counts = np.unique([t for t in tokens if t != eos_id], return_counts=True)[1]
        p = counts / counts.sum()
        entropies.append(-np.sum(p * np.log(p + 1e-10)))
    return np.asarray(entropies)
