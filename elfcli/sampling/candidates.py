"""Several texts for one source: their draws, and which one is kept.

That is minimum Bayes risk (Kumar and Byrne 2004) with sentence BLEU as the gain. Empty and degenerate texts are kept
only where there is nothing else: words that are repeated agree with many texts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from elfcli.scoring.bleu import bleu_metric
from elfcli.scoring.text_quality import degenerate


def draw_keys(seed: int, candidate: int = 0) -> tuple[Any, Any]:
    """Data of the keys of a candidate's (noise, grids)."""
    key = jax.random.key(seed)
    if candidate:  # not 0 or 1 alone, which are what `split` makes of the key
        key = jax.random.fold_in(key, candidate + 1)
    grid_key, noise_key = jax.random.split(key)
    return np.asarray(jax.random.key_data(noise_key)), np.asarray(jax.random.key_data(grid_key))


def most_alike(texts: Sequence[str]) -> int:
    """The place of the text whose mean sentence BLEU against the others is highest; the first where several are.

    Empty and degenerate texts are compared with, but kept only where all are.
    """
    if len(set(texts)) == 1:
        return 0
    metric = bleu_metric()

    def agreement(place: int) -> float:
        others = [text for other, text in enumerate(texts) if other != place]
        return sum(metric.sentence_score(texts[place], [other]).score for other in others)

    sound = [place for place, text in enumerate(texts) if text.strip() and not degenerate(text)]
    return max(sound or range(len(texts)), key=agreement)
