"""MAUVE (Pillutla et al. 2021, arXiv 2102.01454) of texts and real ones, with a judge's features.

The package `mauve-text` compares the two sets of features; ours is the network that makes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from elfcli.data.tokenizers import eos_id
from elfcli.errors import InputError
from elfcli.parallel.mesh import on_devices
from elfcli.scoring.bootstrap import Draws
from elfcli.scoring.judge import Judge, apply_judge, load_judge, not_empty, row_batches, token_rows
from elfcli.scoring.score import Score

CLUSTER_SEED = 25
"""Of the clustering: the package's own default."""
MIN_TEXTS = 100
"""Texts of each kind below which the figure means nothing: it has a bucket for every ten."""


@dataclass(frozen=True)
class MauveResult(Score, metric="mauve", value="mauve"):
    """mauve: 0..1, higher is nearer to the real texts. star: with smoothed histograms (Pillutla et al. 2023). It has no
    interval: texts drawn twice change the clusters. num_samples, num_real: texts compared, the empty ones left out."""

    mauve: float
    mauve_star: float
    frontier_integral: float
    num_samples: int
    num_real: int
    num_buckets: int
    signature: str
    resampled: Draws = field(default=(), repr=False, compare=False)


def mauve(texts: Sequence[str], real: Sequence[str], judge: Judge = Judge()) -> MauveResult:
    """Compares samples with real texts, which need not belong to them. InputError where the package is missing, where
    there are too few texts, and as `perplexity`."""
    try:
        from mauve import compute_mauve
    except ImportError:
        raise InputError("MAUVE needs a package that is not installed: pip install 'elfcli[mauve]'") from None
    kept, compared = not_empty(texts), not_empty(real)
    if min(len(kept), len(compared)) < MIN_TEXTS:
        raise InputError(f"MAUVE of {len(kept)} texts and {len(compared)} real ones: use at least {MIN_TEXTS} of "
                         "each, and as many as the scores that it is compared with")  # fmt: skip
    ours, theirs = (features(part, judge) for part in (kept, compared))
    found = compute_mauve(p_features=theirs, q_features=ours, seed=CLUSTER_SEED)
    _, shape, _, weights = load_judge(judge.model, judge.tokenizer)
    name, window = Path(judge.model.rstrip("/")).name, min(judge.max_length, shape.n_positions)
    signature = (
        f"metric:mauve|version:mauve-text {version('mauve-text')}|features:{name}, last token|weights:{weights[:16]}"
        f"|dtype:{judge.dtype}|window:{window}|buckets:{found.num_buckets}|seed:{CLUSTER_SEED}|empty:skipped"
        f"|texts:{len(kept)}|real:{len(compared)}"
    )
    return MauveResult(float(found.mauve), float(found.mauve_star), float(found.frontier_integral), len(kept),
                       len(compared), int(found.num_buckets), signature)  # fmt: skip


def features(texts: Sequence[str], judge: Judge) -> np.ndarray:
    """The judge's last hidden state at each text's last token, float32 (texts, width)."""
    tokenizer, shape, params, _ = load_judge(judge.model, judge.tokenizer)
    window, eos = min(judge.max_length, shape.n_positions), eos_id(tokenizer)
    rows, weights = token_rows(tokenizer, list(texts), window), on_devices(params)
    shape, found = replace(shape, dtype=jnp.dtype(judge.dtype)), dict[int, np.ndarray]()
    for part, ids_BxT, mask_BxT in row_batches(rows, eos_id=eos, window=window, batch_size=judge.batch_size):
        states_BxE = apply_judge(last_states, shape, weights, ids_BxT, mask_BxT)
        found |= dict(zip(part, np.asarray(states_BxE, np.float32), strict=False))
    return np.stack([found[row] for row in range(len(rows))])


def last_states(model, ids_BxT, mask_BxT):
    """The final hidden states (B, E) at the last position of each row's mask."""
    last_B = jnp.maximum(mask_BxT.sum(axis=1) - 1, 0)
    return jnp.take_along_axis(model(ids_BxT, mask_BxT), last_B[:, None, None], axis=1)[:, 0]
