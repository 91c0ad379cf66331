"""Token vectors from co-occurrence in the data, computed in seconds and without a network.

Factors of positive pointwise mutual information (Levy and Goldberg 2014). In pairs, a source and its target count as
one text, so that a word and its translation get similar vectors (latent semantic analysis; Deerwester et al. 1990,
Dumais et al. 1997). In free texts, tokens are similar if the same tokens stand before and after them, so that one that
is taken for another still fits (Schuetze 1995). The rest of each vector is random: with purely semantic vectors samples
repeat words, and the decoder cannot distinguish tokens that always occur together (docs/experiments.md).
Shapes: V tokens of the vocabulary, P chunks of texts, E latent width.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array, hstack
from scipy.sparse.linalg import svds

from elfcli.data.batches import TokenTable

VECTOR_WIDTH = 64
SHARE, TEXT_SHARE = 0.3, 0.8  # of a vector's mean square that comes from the data: of pairs, of free texts
FEW_USES = 20  # a token with as many has half of that share: what few uses say would draw samples to rare tokens
CHUNK = 32  # tokens of a text that count as near each other
MAX_SCANNED_TOKENS = 4_000_000  # cap on tokens scanned; keeps this to a few seconds
SMALL = 1000  # up to this vocabulary the whole matrix is factored; the iterative method is random with few factors
SMOOTHING = 0.75  # exponent of the context's frequency, which keeps rare tokens from looking alike (Levy et al. 2015)


def token_vectors(tokens: TokenTable, vocab_size: int, seed: int, width: int = VECTOR_WIDTH) -> np.ndarray:
    """Return the table, float32 (V, width); each row has a mean square of 1, like the output of T5's last norm."""
    random_VxE = np.random.default_rng(seed).standard_normal((vocab_size, width))
    if tokens.condition_input_ids is not None:
        found, share_Vx1 = information(token_chunks(tokens), vocab_size), np.full((vocab_size, 1), SHARE)
    else:
        running = running_text(tokens, vocab_size)
        uses_Vx1 = np.bincount(running, minlength=vocab_size + 1)[:vocab_size, None]
        found, share_Vx1 = neighbor_information(running, vocab_size), TEXT_SHARE * uses_Vx1 / (uses_Vx1 + FEW_USES)
    found_VxE = scaled(factors(found, width))
    return scaled(share_Vx1**0.5 * found_VxE + (1 - share_Vx1) ** 0.5 * random_VxE).astype(np.float32)


def scaled(table_VxE: np.ndarray) -> np.ndarray:
    """Scale each row to a mean square of 1; rows of zeros (tokens that never occur) stay."""
    return table_VxE / np.maximum(np.sqrt(np.mean(table_VxE**2, axis=1, keepdims=True)), 1e-9)


def token_chunks(tokens: TokenTable) -> Iterator[np.ndarray]:
    """Yield the distinct tokens of each chunk of a text; a pair's source and target chunks count together."""
    seen = 0
    for row in range(len(tokens)):
        sides = list(tokens[row].values())
        count = max(-(-max(map(len, sides)) // CHUNK), 1)
        for together in zip(*(np.array_split(side, count) for side in sides), strict=True):
            yield np.unique(np.concatenate(together))
        seen += sum(map(len, sides))
        if seen >= MAX_SCANNED_TOKENS:
            return


def information(chunks: Iterator[np.ndarray], vocab_size: int) -> csr_array:
    """Return the positive pointwise mutual information of two tokens in one chunk, symmetric, (V, V)."""
    rows = list(chunks)
    ends_P = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate([np.zeros(0, np.int64), *rows])
    in_chunk_PxV = csr_array((np.ones(len(ids)), ids, ends_P), shape=(len(rows), vocab_size))
    together_VxV = (in_chunk_PxV.T @ in_chunk_PxV).tocoo()
    apart = together_VxV.row != together_VxV.col
    one, other, counts = (array[apart] for array in (together_VxV.row, together_VxV.col, together_VxV.data))
    found_VxV = positive_information(one, other, counts, vocab_size)
    return (found_VxV + found_VxV.T) / 2


def running_text(tokens: TokenTable, vocab_size: int) -> np.ndarray:
    """Return the tokens of all texts in one row, with V before, between and after them; long data is cut."""
    end = np.array([vocab_size])
    texts, seen = [end], 0
    for row in range(len(tokens)):
        texts += [tokens[row]["input_ids"], end]
        if (seen := seen + len(texts[-2])) >= MAX_SCANNED_TOKENS:
            break
    return np.concatenate(texts)


def neighbor_information(running: np.ndarray, vocab_size: int) -> csr_array:
    """Return the positive pointwise mutual information of each token with the one before it and, in columns of their
    own, with the one after it, (V, 2V + 2). Ends of texts count as a neighbor. running: as of `running_text`."""
    ones, size = np.ones(len(running) - 1), vocab_size + 1
    before = positive_information(running[1:], running[:-1], ones, size)
    after = positive_information(running[:-1], running[1:], ones, size)
    return hstack([before, after], format="csr")[:vocab_size]


def positive_information(one: np.ndarray, other: np.ndarray, counts: np.ndarray, size: int) -> csr_array:
    """Return max(log(P(one, other) / (P(one) P(other))), 0) of counted pairs, (size, size); P(other) is smoothed."""
    together = csr_array((counts, (one, other)), shape=(size, size)).tocoo()
    total = np.bincount(together.row, together.data, minlength=size)
    smooth = np.bincount(together.col, together.data, minlength=size) ** SMOOTHING
    value = np.log(together.data * smooth.sum() / (total[together.row] * smooth[together.col]))
    likely = value > 0
    return csr_array((value[likely], (together.row[likely], together.col[likely])), shape=(size, size))


def factors(matrix_VxC: csr_array, width: int) -> np.ndarray:
    """Return (V, width): the largest singular vectors times the roots of their values; zeros if there are fewer."""
    size = matrix_VxC.shape[0]
    rank = min(width, size - 1)
    if size <= SMALL:
        left_VxR, values_R, _ = np.linalg.svd(matrix_VxC.toarray(), full_matrices=False)
        left_VxR, values_R = left_VxR[:, :rank], values_R[:rank]
    else:
        left_VxR, values_R, _ = svds(matrix_VxC, k=rank, v0=np.ones(size))
    return np.pad(left_VxR * np.sqrt(values_R), ((0, 0), (0, width - rank)))
