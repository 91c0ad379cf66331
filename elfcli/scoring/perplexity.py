"""Generative perplexity and unigram entropy as the reference (github.com/lillian039/ELF) computes them; GPT-2 judges,
or an n-gram model of the training texts. For a network, texts are scored longest first and padded to a few lengths:
short ones cost little, and few programs are compiled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elfcli.data.tokenizers import eos_id
from elfcli.errors import ElfError, InputError
from elfcli.parallel.agree import run_on_all
from elfcli.parallel.hashes import digest
from elfcli.parallel.mesh import on_devices
from elfcli.scoring import judge as judges
from elfcli.scoring import ngram
from elfcli.scoring.bootstrap import interval, resampled
from elfcli.scoring.judge import NGRAM, Judge, Shape, load_judge_tokenizer, not_empty, token_rows
from elfcli.scoring.protocol import is_gpt2_large, protocol_part
from elfcli.scoring.score import Metric, Score, ScoreOptions, Texts

GPT2_VOCABULARY = "7fc3f1df6887d8d0"  # `digest` of GPT-2's tokens in the order of their ids


@dataclass(frozen=True)
class PerplexityResult(Score, metric="ppl", value="ppl"):
    """ppl: exp(NLL per scored token), pooled. entropy: unigram, nats, mean over texts; of the n-gram judge that of all
    texts together. num_tokens: scored tokens. num_samples: texts that are not empty. max_length: tokens at which texts
    were truncated. real: ppl and entropy of real texts."""

    ppl: float
    entropy: float
    num_samples: int
    num_skipped_empty: int
    num_tokens: int
    model: str
    max_length: int
    signature: str = ""
    intervals: dict = field(default_factory=dict)
    real: dict | None = None


def perplexity(
    texts: Sequence[str], judge: Judge = Judge(), update: Callable[[int], None] = lambda done: None
) -> PerplexityResult:
    """Score texts. update(done) gets the texts done. Raises InputError for empty texts or a judge that does not fit."""
    full = not_empty(texts)
    if judge.max_length < 2:
        raise InputError(f"max_length {judge.max_length}: a text's first token is never scored, so use 2 or more")
    if judge.model == NGRAM:
        return ngram_perplexity(texts, judge)
    tokenizer, shape, params, weights = run_on_all(partial(judges.load_judge, judge.model, judge.tokenizer))
    window, eos = min(judge.max_length, shape.n_positions), eos_id(tokenizer)
    rows, skipped = token_rows(tokenizer, full, window), len(texts) - len(full)
    score = partial(score_tokens, replace(shape, dtype=jnp.dtype(judge.dtype)), on_devices(params))
    nll_R, counts_R = row_totals(
        score, rows, eos_id=eos, window=window, batch_size=judge.batch_size, update=lambda done: update(skipped + done)
    )
    value = run_on_all(lambda: pooled(nll_R, counts_R, judge.model))
    entropies_R = unigram_entropies(rows, eos)
    ppl_draws, entropy_draws = spread(texts, nll_R, counts_R, entropies_R)
    name, vocabulary = (Path(n.rstrip("/")).name for n in (judge.model, judge.tokenizer or judge.model))
    signature = (
        f"metric:ppl|{protocol_part(departures(judge, tokenizer, shape))}"
        f"|version:transformers {version('transformers')}|judge:{name}|weights:{weights[:16]}"
        f"|dtype:{judge.dtype}|window:{window}|retokenised:{vocabulary}|eos:first scored|empty:skipped"
    )
    return PerplexityResult(
        ppl=value, entropy=float(entropies_R.mean()), num_samples=len(full), num_skipped_empty=skipped,
        num_tokens=int(counts_R.sum()), model=judge.model, max_length=window, signature=signature,
        intervals={"entropy": interval(entropy_draws)}, resampled=ppl_draws,
    )  # fmt: skip


def ngram_perplexity(
    texts: Sequence[str], judge: Judge, pooled_texts: int = ngram.MAX_POOLED_TEXTS
) -> PerplexityResult:
    """Score texts by an n-gram model of the judge's data. Raises InputError if there are no texts or no data.

    pooled_texts: the entropy is that of all tokens of at most this number of texts; more texts have a higher one.
    """
    full, of = not_empty(texts), run_on_all(partial(ngram.load_ngram_judge, judge.data, judge.tokenizer))
    rows = token_rows(of.tokenizer, full, judge.max_length)
    nll_R, counts_R = ngram.row_totals(of.model, rows)
    together = min(pooled_texts, len(rows))
    ppl_draws, _ = spread(texts, nll_R, counts_R, counts_R)
    signature = (
        f"metric:ppl|{protocol_part(['judge'])}|judge:{ngram.ORDER}-gram, Witten-Bell|counted:{of.fingerprint}"
        f"|tokens:{of.num_tokens}|window:{judge.max_length}|end:scored|entropy:of {together} texts|empty:skipped"
    )
    return PerplexityResult(
        ppl=float(np.exp(nll_R.sum() / counts_R.sum())), entropy=ngram.pooled_entropy(rows[:together]),
        num_samples=len(full), num_skipped_empty=len(texts) - len(full), num_tokens=int(counts_R.sum()),
        model=f"{ngram.ORDER}-gram model of {judge.data}", max_length=judge.max_length, signature=signature,
        resampled=ppl_draws,
    )  # fmt: skip


def departures(judge: Judge, tokenizer: Any, shape: Shape) -> list[str]:
    """Return the parts of the signature in which a judge departs from the paper's. shape: of the network."""
    tokens = tokenizer.get_vocab()
    same = {
        "judge": is_gpt2_large(judge.model, shape),
        "dtype": judge.dtype == Judge.dtype,
        "window": min(judge.max_length, shape.n_positions) == Judge.max_length,
        "retokenised": digest(sorted(tokens, key=tokens.__getitem__)) == GPT2_VOCABULARY,
    }
    return [part for part, holds in same.items() if not holds]


def entropy(texts: Sequence[str], tokenizer: str, max_length: int = 1024) -> float:
    """Return the mean unigram entropy (nats) of the texts that are not empty. Raises InputError if all are."""
    loaded = load_judge_tokenizer(tokenizer, None)
    return float(unigram_entropies(token_rows(loaded, not_empty(texts), max_length), eos_id(loaded)).mean())


def spread(
    texts: Sequence[str], nll_R: np.ndarray, counts_R: np.ndarray, entropies_R: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (perplexity, entropy) of the bootstrap draws of all N texts; empty ones add nothing."""
    parts_NxK = np.zeros((len(texts), 4))
    full_N = [bool(text.strip()) for text in texts]
    parts_NxK[full_N] = np.stack([nll_R, counts_R, entropies_R, np.ones(len(nll_R))], axis=1)

    def formula(sums: np.ndarray) -> np.ndarray:
        return np.stack([np.exp(sums[:, 0] / sums[:, 1]), sums[:, 2] / sums[:, 3]], axis=1)

    draws_RxK = resampled(parts_NxK, formula).reshape(-1, 2)
    return draws_RxK[:, 0], draws_RxK[:, 1]


@lru_cache(maxsize=2)
def real_text_score(texts: tuple[str, ...], judge: Judge) -> dict:
    """Return perplexity and entropy of real texts, to compare samples with."""
    return _summary(perplexity(texts, judge))


def _summary(result: PerplexityResult) -> dict:
    return {"ppl": result.ppl, "entropy": result.entropy, "num_samples": result.num_samples}


def pooled(nll_R: np.ndarray, counts_R: np.ndarray, model: str) -> float:
    """Return the perplexity over all rows. Raises ElfError if it is not finite."""
    if not counts_R.sum():
        raise InputError("the texts hold nothing but end-of-text tokens: nothing to score")
    value = float(np.exp(nll_R.sum() / counts_R.sum()))
    if not np.isfinite(value):
        raise ElfError(f"{model}: the perplexity is {value}; the weights are damaged or not of a language model")
    return value


def row_totals(
    score: Callable,
    rows: Sequence[Sequence[int]],
    *,
    eos_id: int,
    window: int,
    batch_size: int,
    update: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (NLL, number of scored tokens), each (R,), of R token rows of at most `window` tokens. The batch size does
    not change them. score(ids (B, T), mask (B, T), eos_id): as `score_tokens`."""
    nll_R, counts_R = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    done = 0
    for part, ids_BxT, mask_BxT in judges.row_batches(rows, eos_id=eos_id, window=window, batch_size=batch_size):
        nll, scored = score(ids_BxT, mask_BxT, eos_id)
        nll_R[part] = np.where(scored, nll, 0.0).sum(axis=1)[: len(part)]
        counts_R[part] = scored.sum(axis=1)[: len(part)]
        done += len(part)
        update(done)
    return nll_R, counts_R


def next_nll(model: Any, ids_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """Return the negative log-likelihood (B, T-1) of each next token."""
    return model.nll(model(ids_BxT, mask_BxT), jnp.roll(ids_BxT, -1, axis=1))[:, :-1]


def score_tokens(
    shape: Shape, params: Any, ids_BxT: np.ndarray, mask_BxT: np.ndarray, eos_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (NLL, scored), both (B, T-1), of each next token; of a row's eos only the first. B: see `apply_judge`."""
    nll = judges.apply_judge(next_nll, shape, params, ids_BxT, mask_BxT)
    is_eos = np.asarray(ids_BxT) == eos_id
    first_eos = is_eos & (np.cumsum(is_eos, axis=1) == 1)
    return np.asarray(nll, np.float64), (~is_eos | first_eos)[:, 1:]


def unigram_entropies(token_rows: Sequence[Sequence[int]], eos_id: int) -> np.ndarray:
    """Return -sum p ln(p + 1e-10) of each row's unigram distribution without eos (nats)."""
    entropies = []
    for tokens in token_rows:
        counts = np.unique([t for t in tokens if t != eos_id], return_counts=True)[1]
        p = counts / counts.sum()
        entropies.append(-np.sum(p * np.log(p + 1e-10)))
    return np.asarray(entropies)


def _compute(texts: Texts, options: ScoreOptions) -> PerplexityResult:
    real = tuple(filter(str.strip, texts.real or ()))
    if options.judge.model == NGRAM and real:  # the entropies of both are then of equally many texts
        together = min(len(real), len(not_empty(texts.generated)), ngram.MAX_POOLED_TEXTS)
        result, compared = (ngram_perplexity(some, options.judge, together) for some in (texts.generated, real))
        return replace(result, real=_summary(compared))
    result = perplexity(texts.generated, options.judge, options.update)
    return replace(result, real=real_text_score(real, options.judge)) if real else result


def _check(num_texts: int, num_real: int, judge: Judge) -> None:
    if judge.model == NGRAM:
        ngram.load_ngram_judge(judge.data, judge.tokenizer)
    else:
        load_judge_tokenizer(judge.model, judge.tokenizer)


METRIC = Metric(
    "ppl",
    label="Generative perplexity",
    description="texts re-tokenized for the judge, next-token NLL pooled over samples, empty samples skipped",
    columns={"ppl": "perplexity", "entropy": "entropy"},
    compute=_compute,
    larger_is_better=False,
    uses_judge=True,
    check=_check,
)
