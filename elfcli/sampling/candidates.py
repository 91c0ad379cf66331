"""Several candidates per source: their random keys, and the choice of one.

Of translations and summaries the consensus is kept: minimum Bayes risk decoding (Kumar and Byrne 2004) with sentence
BLEU as the gain. A gap has many good answers, which need not agree, so of filled templates the likeliest is kept.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from elfcli.config.schema import Config
from elfcli.hub_access import is_local
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import Sources
from elfcli.scoring.bleu import bleu_metric
from elfcli.scoring.ngram import NgramJudge, load_ngram_judge, row_totals
from elfcli.scoring.protocol import bleu_tokenizer
from elfcli.scoring.text_quality import degenerate
from elfcli.ui.progress import say

JUDGE, CONSENSUS = "n-gram judge", "consensus"
JUDGE_ORDER = 8  # above that of a score, because a trigram model does not see that a noun comes twice
LENGTH_POWER = 0.8  # 0 prefers short texts, 1 long ones (Wu et al. 2016, without their constants)
Choice = Callable[[Sequence[str]], int]  # the candidates of one text -> index of the one that is kept


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

    return max(sound(texts), key=agreement)


def likeliest(judge: NgramJudge, texts: Sequence[str]) -> int:
    """Return the index of the sound text with the lowest -ln P / tokens ** LENGTH_POWER, the first of equals."""
    rows = judge.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    nll, counts = row_totals(judge.model, rows)
    return min(sound(texts), key=lambda index: nll[index] / counts[index] ** LENGTH_POWER)


def sound(texts: Sequence[str]) -> Sequence[int]:
    """Return the indices of the texts that are neither empty nor degenerate, or of all texts if none is."""
    return [index for index, text in enumerate(texts) if text.strip() and not degenerate(text)] or range(len(texts))


def chosen_by(config: Config, setting: SamplingSetting, sources: Sources) -> str | None:
    """Return what chooses between the candidates of a text: for templates, the judge, if the training texts are here.

    None if there is one candidate.
    """
    if setting.candidates == 1:
        return None
    return JUDGE if sources.templates and is_local(config.data.data_path) else CONSENSUS


def choice_of(model: LoadedModel, setting: SamplingSetting, sources: Sources) -> Choice:
    """Return what chooses between the candidates of a text."""
    chooser = chosen_by(model.config, setting, sources)
    if chooser == JUDGE:  # with the model's own tokenizer, because the data's may have to be downloaded
        path, tokenizer = model.config.data.data_path, model.tokenizer.name_or_path
        return partial(likeliest, load_ngram_judge(path, tokenizer, JUDGE_ORDER))
    if chooser and sources.templates:
        say("the training texts are not here: of the candidates, the consensus is kept, not the likeliest")
    return most_alike
