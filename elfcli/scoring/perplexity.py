"""Generative perplexity and unigram entropy as the reference (github.com/lillian039/ELF) computes them; GPT-2 judges.

Texts are scored longest first, padded to a few lengths, so that short ones cost little and few programs are compiled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from elfcli.data.tokenizers import eos_id
from elfcli.errors import ElfError, InputError
from elfcli.parallel.agree import run_on_all
from elfcli.parallel.hashes import digest
from elfcli.parallel.mesh import on_devices
from elfcli.scoring.bootstrap import Draws, interval, resampled
from elfcli.scoring.judge import (
    Judge,
    Shape,
    apply_judge,
    load_judge,
    load_judge_tokenizer,
    not_empty,
    row_batches,
    token_rows,
)
from elfcli.scoring.protocol import is_gpt2_large, protocol_part
from elfcli.scoring.score import Metric, Score, ScoreOptions, Texts

GPT2_VOCABULARY = "7fc3f1df6887d8d0"
"""`digest` of GPT-2's tokens in the order of their ids."""


@dataclass(frozen=True)
class PerplexityResult(Score, metric="ppl", value="ppl"):
    """ppl: exp(NLL per scored token), pooled. entropy: unigram, nats, mean over texts. num_tokens: scored tokens.

    num_samples: non-empty texts. max_length: tokens at which texts were truncated. intervals: of the entropy. real:
    perplexity and entropy of real texts.
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
    real: dict | None = None
    resampled: Draws = field(default=(), repr=False, compare=False)


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
    judge_tokenizer, shape, params, weights = run_on_all(partial(load_judge, judge.model, judge.tokenizer))
    window, eos = min(judge.max_length, shape.n_positions), eos_id(judge_tokenizer)
    rows = token_rows(judge_tokenizer, kept, window)
    skipped = len(texts) - len(kept)
    score = partial(score_tokens, replace(shape, dtype=jnp.dtype(judge.dtype)), on_devices(params))
    nll, counts = row_totals(
        score, rows, eos_id=eos, window=window, batch_size=judge.batch_size, update=lambda done: update(skipped + done)
    )
    value = run_on_all(lambda: pooled(nll, counts, judge.model))
    entropies = unigram_entropies(rows, eos)
    values, entropy_draws = spread(texts, nll, counts, entropies)
    name, vocabulary = (Path(n.rstrip("/")).name for n in (judge.model, judge.tokenizer or judge.model))
    signature = (
        f"metric:ppl|{protocol_part(departures(judge, judge_tokenizer, shape))}"
        f"|version:transformers {version('transformers')}|judge:{name}|weights:{weights[:16]}"
        f"|dtype:{judge.dtype}|window:{window}|retokenised:{vocabulary}|eos:first scored|empty:skipped"
    )
    return PerplexityResult(
        ppl=value,
        entropy=float(entropies.mean()),
        num_samples=len(kept),
        num_skipped_empty=skipped,
        num_tokens=int(counts.sum()),
        model=judge.model,
        max_length=window,
        signature=signature,
        intervals={"entropy": interval(entropy_draws)},
        resampled=values,
    )


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
    """Return perplexity and entropy of real texts, to compare samples with."""
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


def _compute(texts: Texts, options: ScoreOptions) -> PerplexityResult:
    found = perplexity(texts.generated, options.judge, options.update)
    if not any(map(str.strip, texts.real or ())):
        return found
    return replace(found, real=real_text_score(tuple(texts.real or ()), options.judge))


METRIC = Metric(
    "ppl",
    label="Generative perplexity",
    description="texts re-tokenized for the judge, next-token NLL pooled over samples, empty samples skipped",
    columns={"ppl": "perplexity", "entropy": "entropy"},
    compute=_compute,
    larger_is_better=False,
    uses_judge=True,
    check=lambda num_texts, num_real, judge: load_judge_tokenizer(judge.model, judge.tokenizer),
)
