"""MAUVE (Pillutla et al. 2021, arXiv 2102.01454) of generated and real texts, with a judge's features. The package
`mauve-text` compares the two sets of features; our network computes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elfcli.data.tokenizers import eos_id
from elfcli.errors import InputError
from elfcli.parallel.mesh import on_devices
from elfcli.scoring.judge import Judge, apply_judge, load_judge, not_empty, row_batches, token_rows
from elfcli.scoring.score import Metric, Score

CLUSTER_SEED = 25  # seed of the clustering: the package's own default
MIN_TEXTS = 100  # with fewer texts of each kind MAUVE is meaningless: it has a cluster for every ten


@dataclass(frozen=True)
class MauveResult(Score, metric="mauve", value="mauve"):
    """MAUVE from 0 to 1, higher is closer to the real texts. mauve_star: with smoothed histograms (arXiv 2212.14578).
    It has no interval: a text that is drawn twice changes the clusters. num_samples, num_real: non-empty texts."""

    mauve: float
    mauve_star: float
    frontier_integral: float
    num_samples: int
    num_real: int
    num_buckets: int
    signature: str


def mauve(texts: Sequence[str], real: Sequence[str], judge: Judge = Judge()) -> MauveResult:
    """Compare samples with real texts (no pairs). Raises InputError for a missing package or too few texts."""
    ours, theirs = not_empty(texts), not_empty(real)
    check(len(ours), len(theirs), judge)
    from mauve import compute_mauve

    result = compute_mauve(q_features=features(ours, judge), p_features=features(theirs, judge), seed=CLUSTER_SEED)
    _, shape, _, weights = load_judge(judge.model, judge.tokenizer)
    name, window = Path(judge.model.rstrip("/")).name, min(judge.max_length, shape.n_positions)
    signature = (
        f"metric:mauve|version:mauve-text {version('mauve-text')}|features:{name}, last token|weights:{weights[:16]}"
        f"|dtype:{judge.dtype}|window:{window}|buckets:{result.num_buckets}|seed:{CLUSTER_SEED}|empty:skipped"
        f"|texts:{len(ours)}|real:{len(theirs)}"
    )
    return MauveResult(float(result.mauve), float(result.mauve_star), float(result.frontier_integral), len(ours),
                       len(theirs), int(result.num_buckets), signature)  # fmt: skip


def features(texts: Sequence[str], judge: Judge) -> np.ndarray:
    """Return the judge's last hidden state at each text's last token, float32 (texts, width)."""
    tokenizer, shape, params, _ = load_judge(judge.model, judge.tokenizer)
    window, eos = min(judge.max_length, shape.n_positions), eos_id(tokenizer)
    rows, weights = token_rows(tokenizer, list(texts), window), on_devices(params)
    shape, found = replace(shape, dtype=jnp.dtype(judge.dtype)), dict[int, np.ndarray]()
    for part, ids_BxT, mask_BxT in row_batches(rows, eos_id=eos, window=window, batch_size=judge.batch_size):
        states_BxE = apply_judge(last_states, shape, weights, ids_BxT, mask_BxT)
        found |= dict(zip(part, np.asarray(states_BxE, np.float32), strict=False))
    return np.stack([found[row] for row in range(len(rows))])


def last_states(model: Any, ids_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """Return the final hidden states (B, E) at the last position of each row's mask."""
    last_B = jnp.maximum(mask_BxT.sum(axis=1) - 1, 0)
    return jnp.take_along_axis(model(ids_BxT, mask_BxT), last_B[:, None, None], axis=1)[:, 0]


def check(num_texts: int, num_real: int, judge: Judge) -> None:
    """Raise InputError if the package is missing or there are too few texts."""
    if find_spec("mauve") is None:
        raise InputError("MAUVE needs a package that is not installed: pip install 'elfcli[mauve]'")
    if min(num_texts, num_real) < MIN_TEXTS:
        raise InputError(f"MAUVE of {num_texts} texts and {num_real} real ones: use at least {MIN_TEXTS} of each, and "
                         "the same numbers for all scores that you compare")  # fmt: skip


METRIC = Metric(
    "mauve",
    label="MAUVE",
    description="mauve-text with the judge's last hidden states as features",
    columns={"mauve": "MAUVE"},
    compute=lambda texts, options: mauve(texts.generated, texts.real or (), options.judge),
    needs="real",
    uses_judge=True,
    check=check,
)
