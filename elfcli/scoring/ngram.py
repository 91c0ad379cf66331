"""The n-gram judge: an interpolated n-gram model of a data folder's training texts, a trigram model where it scores. It
needs no download and takes seconds.

Smoothing of Witten and Bell (1991), interpolated as in Chen and Goodman (1999): with counts c, the number d of distinct
tokens after a history h, and h' the history without its first token,
P(w | h) = (c(h w) + d(h) P(w | h')) / (c(h) + d(h)), and below unigrams the uniform distribution.
Shapes: T predicted tokens, R texts. A text has an edge on both sides: its end is predicted, too.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elfcli.data.folder import load_examples, recorded_tokenizer
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import InputError
from elfcli.hub_access import looks_like_a_path

ORDER = 3  # of the judge that scores
MAX_COUNTED_TOKENS = 10_000_000  # of the training split, from its start
MAX_POOLED_TEXTS = 300  # texts whose tokens together give the entropy


class Counts(NamedTuple):
    """Sorted n-grams as numbers, and how often each occurs; their sorted histories, with c(h) and d(h)."""

    grams: np.ndarray
    counts: np.ndarray
    histories: np.ndarray
    totals: np.ndarray
    distinct: np.ndarray


class NgramModel(NamedTuple):
    """Counts of each order from 1 up. base: number of symbols, the vocabulary and the edge."""

    orders: tuple[Counts, ...]
    base: int


class NgramJudge(NamedTuple):
    """A model with its tokenizer. fingerprint: of the training split. num_tokens: those that were counted."""

    model: NgramModel
    tokenizer: Any
    fingerprint: str
    num_tokens: int


@lru_cache(maxsize=2)
def load_ngram_judge(data: str | None, tokenizer: str | None = None, order: int = ORDER) -> NgramJudge:
    """Count the training split of a data folder. tokenizer: None: the data's. Raises InputError if there is none."""
    if data is None or (looks_like_a_path(data) and not Path(data).expanduser().is_dir()):
        raise InputError(f"the n-gram judge counts the training texts, but {data or 'their folder'} is not here: name "
                         "it with --set data_path=DIR (eval-ppl: --data DIR), or choose another judge")  # fmt: skip
    examples = load_examples(data, "train")
    loaded, column = load_tokenizer(tokenizer or recorded_tokenizer(examples)), examples.tokens.input_ids
    lengths = column.lengths()
    count = max(int(np.searchsorted(np.cumsum(lengths), MAX_COUNTED_TOKENS, side="right")), 1)
    model = fit((column[row] for row in range(min(count, len(column)))), vocab_size(loaded), order)
    return NgramJudge(model, loaded, examples.fingerprint, int(lengths[:count].sum()))


def fit(rows: Iterable[Sequence[int] | np.ndarray], vocab_size: int, order: int = ORDER) -> NgramModel:
    """Count the n-grams of token rows, up to this order if all are int64 numbers, else up to the highest that is."""
    base = vocab_size + 1
    order = min(order, int(63 / math.log2(base)))
    return NgramModel(tuple(_counts(keys_T, base) for keys_T in gram_keys(rows, base, order)), base)


def _counts(keys_T: np.ndarray, base: int) -> Counts:
    grams, counts = np.unique(keys_T, return_counts=True)
    histories, first = np.unique(grams // base, return_index=True)
    return Counts(grams, counts, histories, np.add.reduceat(counts, first), np.diff(first, append=len(grams)))


def gram_keys(rows: Iterable[Sequence[int] | np.ndarray], base: int, order: int) -> list[np.ndarray]:
    """Return for each order the n-gram that ends at each predicted token, as a number to this base, (T,) int64."""
    before, edge = np.full(order - 1, base - 1), np.array([base - 1])
    padded = [np.concatenate([before, np.asarray(row, np.int64), edge]) for row in rows]
    stream = np.concatenate(padded)
    predicted = np.concatenate([np.arange(len(row)) >= order - 1 for row in padded]).nonzero()[0]
    keys = [stream[predicted]]
    for back in range(1, order):
        keys.append(stream[predicted - back] * base**back + keys[-1])
    return keys


def next_nll(model: NgramModel, rows: Iterable[Sequence[int]]) -> np.ndarray:
    """Return -ln P (T,) of every token and end of the rows, one row after the other."""
    p_T: Any = 1 / model.base
    for counts, keys_T in zip(model.orders, gram_keys(rows, model.base, len(model.orders)), strict=True):
        history_T = keys_T // model.base
        total_T = _at(counts.histories, counts.totals, history_T)
        distinct_T = _at(counts.histories, counts.distinct, history_T)
        seen_T = _at(counts.grams, counts.counts, keys_T) + distinct_T * p_T
        p_T = np.where(total_T > 0, seen_T / np.maximum(total_T + distinct_T, 1), p_T)
    return -np.log(p_T)


def _at(sorted_keys: np.ndarray, values: np.ndarray, wanted_T: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 if it is missing."""
    place_T = np.minimum(np.searchsorted(sorted_keys, wanted_T), len(sorted_keys) - 1)
    return np.where(sorted_keys[place_T] == wanted_T, values[place_T], 0)


def row_totals(model: NgramModel, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (NLL, number of predicted tokens), each (R,)."""
    counts_R = np.array([len(row) + 1 for row in rows])
    ends_R = np.cumsum(counts_R)
    return np.add.reduceat(next_nll(model, rows), ends_R - counts_R), counts_R


def pooled_entropy(rows: Sequence[Sequence[int]]) -> float:
    """Return the entropy (nats) of the unigrams of all rows together. It grows with the number of rows."""
    counts = np.unique(np.concatenate([np.asarray(row, np.int64) for row in rows]), return_counts=True)[1]
    p = counts / counts.sum()
    return float(-np.sum(p * np.log(p)))
