"""Several candidates per source: their random keys, and the choice of the consensus candidate.

The choice is minimum Bayes risk decoding (Kumar and Byrne 2004) with sentence BLEU as the gain.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from elfcli.scoring.bleu import bleu_metric
from elfcli.scoring.protocol import bleu_tokenizer
from elfcli.scoring.text_quality import degenerate


def draw_keys(seed: int, candidate: int = 0) -> tuple[Any, Any]:
    """Return the key data of a candidate's (noise, grids)."""
    key = jax.random.key(seed)
    if candidate:  # not 0 or 1, the numbers from which `split` derives its keys
        key = jax.random.fold_in(key, candidate + 1)
    grid_key, noise_key = jax.random.split(key)
    return np.asarray(jax.random.key_data(noise_key)), np.asarray(jax.random.key_data(grid_key))


def most_alike(texts: Sequence[str]) -> int:
    """Return the index of the text with the highest mean sentence BLEU against the others, the first of equals.

    Empty and degenerate texts are chosen only if all texts are: repeated words agree with many texts.
    """
    if len(set(texts)) == 1:
        return 0
    metric = bleu_metric(tokenizer=bleu_tokenizer(tuple(texts)))

    def agreement(index: int) -> float:
        others = [text for other, text in enumerate(texts) if other != index]
        return sum(metric.sentence_score(texts[index], [other]).score for other in others)

    sound = [index for index, text in enumerate(texts) if text.strip() and not degenerate(text)]
    return max(sound or range(len(texts)), key=agreement)
