"""Several candidates per source: the consensus candidate, and draws that depend on seed and number alone."""

import jax
import numpy as np
import pytest
from tiny_run import tiny_run

from elfcli.sampling import candidates
from elfcli.sampling import generate as g
from elfcli.sampling.candidates import JUDGE_ORDER, draw_keys, likeliest, most_alike
from elfcli.sampling.generate import Options, sample_rows
from elfcli.sampling.made_by import network_calls
from elfcli.sampling.model import load_model
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import sources_of
from elfcli.sampling.trace import traced
from elfcli.scoring.ngram import NgramJudge, fit, row_totals


@pytest.mark.parametrize(
    ("texts", "index"),
    [
        (["a b c d e", "x y z", "a b c d f"], 0),
        (["x y z", "a b c d e", "a b c d f"], 1),
        (["", "", "a b"], 2),
        (["go go go go go go", "go go go go go go x", "a b"], 2),
        (["", ""], 0),
        (["same", "same"], 0),
        (["one of one"], 0),
    ],
)
def test_the_consensus_candidate(texts, index):
    assert most_alike(texts) == index


def test_candidates_are_drawn_by_seed_and_number(monkeypatch):
    model = load_model(str(tiny_run()))
    setting = SamplingSetting("sde", 3, 1.5, sde_gamma=1.0, candidates=3)
    sources = sources_of(model, model.config.data.data_path, 6)
    chosen = []
    monkeypatch.setattr(candidates, "most_alike", lambda texts: chosen.append(texts) or len(chosen) % 3)
    encoded, encode = [], g.encode_batch
    monkeypatch.setattr(g, "encode_batch", lambda *arguments: encoded.append(1) or encode(*arguments))
    texts = [row["generated"] for row in sample_rows(model, sources, setting, Options(5, batch_size=4))]
    assert texts == [drawn[(i + 1) % 3] for i, drawn in enumerate(chosen)]
    assert len(encoded) == 2, "the sources of a batch are encoded once for all candidates"
    monkeypatch.undo()
    alone = sample_rows(model, sources, SamplingSetting("sde", 3, 1.5, sde_gamma=1.0), Options(5))
    assert [row["generated"] for row in alone] == [drawn[0] for drawn in chosen[:6]]
    assert any(len(set(drawn)) > 1 for drawn in chosen), "candidates differ"
    monkeypatch.setattr(candidates, "most_alike", lambda texts: 2)
    traces = traced(model, sources, setting, Options(5))
    assert [trace.row["generated"] for trace in traces] == [drawn[2] for drawn in chosen[:6]]
    assert network_calls(model.config, setting) == 3 * 7


def test_no_two_candidates_share_a_key():
    keys = [tuple(key.tolist()) for candidate in range(9) for key in draw_keys(3, candidate)]
    assert len(set(keys)) == 18
    grid, noise = jax.random.split(jax.random.key(3))
    for key, before in zip(draw_keys(3), (noise, grid), strict=True):
        np.testing.assert_array_equal(key, jax.random.key_data(before))


def judge_of(texts, order):
    """An n-gram judge of texts, whose tokens are their words."""
    words = {word: number for number, word in enumerate(sorted({word for text in texts for word in text.split()}))}

    def tokenizer(some, add_special_tokens):
        return {"input_ids": [[words[word] for word in text.split()] for text in some]}

    return NgramJudge(fit(tokenizer(texts, False)["input_ids"], len(words), order), tokenizer, "", 0)


def test_the_judge_of_candidates_sees_both_ends_of_a_text():
    texts = ["anna shows it to otto", "otto shows it to anna"]
    fills = ["otto shows it to otto", texts[0]]
    for order, better in ((JUDGE_ORDER, 1), (3, 0)):  # for a trigram model both are equal, and the first is kept
        judge = judge_of(texts, order)
        assert (likeliest(judge, fills), likeliest(judge, fills[::-1])) == (better, 0)


def test_the_judge_of_candidates_prefers_neither_short_nor_long_texts():
    fills = ["a b", "c d e f g", "h i j k l m n o p q r"]
    judge = judge_of([fills[0]] * 740 + [fills[1]] * 440 + [fills[2]] * 120 + ["z"] * 700, JUDGE_ORDER)
    nll, counts = row_totals(judge.model, judge.tokenizer(fills, add_special_tokens=False)["input_ids"])
    assert (np.argmin(nll), np.argmin(nll / counts), likeliest(judge, fills)) == (0, 2, 1)
