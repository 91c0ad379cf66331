"""Perplexity against a plain computation, row by row; the same however batched; what is left out and refused."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gpt2_files import write_gpt2, write_judge
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from elfcli.data.tokenizers import load_tokenizer
from elfcli.errors import ElfError, InputError
from elfcli.scoring import perplexity as module
from elfcli.scoring.judge import PADDED_LENGTHS, Judge, padded_length
from elfcli.scoring.perplexity import perplexity, row_totals, score_tokens, unigram_entropies
from elfcli.weights import files
from elfcli.weights.judges import load_judge_network

WORDS = ["the", "package", "library", "of", "shared", "tools", "data files", "in", "documentation", "contains"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A model of 50 tokens, the last of them eos, with a window of 60."""
    return write_gpt2(tmp_path_factory.mktemp("small"), 50, 60)


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judge") / "gpt2")


def random_rows(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [list(rng.integers(0, 49, length)) for length in lengths]


def plain_log_p(folder: Path, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities (T, V) of the next token: GPT-2 in float64 numpy, straight from the file, four heads."""
    w = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for i in range(2):
        heads = [
            np.split(part, 4, axis=1) for part in np.split(dense(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, 1)
        ]
        mixed = []
        for q, k, v in zip(*heads, strict=True):
            weights = np.tril(np.exp(q @ k.T / np.sqrt(q.shape[1])))
            mixed.append(weights / weights.sum(1, keepdims=True) @ v)
        x = x + dense(np.concatenate(mixed, axis=1), f"h.{i}.attn.c_proj")
        inner = dense(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        inner = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = x + dense(inner, f"h.{i}.mlp.c_proj")
    logits = norm(x, "ln_f") @ w["wte.weight"].T
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def plain_totals(folder: Path, rows, eos: int, window: int):
    """(NLL, scored tokens) of each row alone, with the one eos that is scored if it has room."""
    totals = []
    for row in rows:
        ids = np.array([*row, eos] if len(row) < window else row)
        totals.append((-plain_log_p(folder, ids)[np.arange(len(ids) - 1), ids[1:]].sum(), len(ids) - 1))
    return map(np.array, zip(*totals, strict=True))


def totals(folder: Path, rows, batch_size: int, window: int = 60, **settings):
    shape, params = load_judge_network(str(folder))
    score = partial(score_tokens, shape, params)
    return row_totals(score, rows, eos_id=49, window=window, batch_size=batch_size, **settings)


def test_totals_are_those_of_each_row_alone(small):
    rows = random_rows([1, 2, 30, 31, 32, 33, 47, 48, 59, 60])  # the last fills the window: no eos after it
    nll, counts = totals(small, rows, 3)
    want_nll, want_counts = plain_totals(small, rows, 49, 60)
    assert list(counts) == list(want_counts)
    np.testing.assert_allclose(nll, want_nll, rtol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_totals_do_not_depend_on_the_batch_size_or_the_order(small, batch_size):
    rows = random_rows([5, 60, 17, 40, 52, 3, 33])
    nll, counts = totals(small, rows, batch_size)
    again_nll, again_counts = totals(small, rows[::-1], 3)
    assert list(counts) == list(again_counts[::-1])
    np.testing.assert_allclose(nll, again_nll[::-1], rtol=2e-6)


def test_an_eos_within_a_text_takes_the_place_of_the_one_after_it(small):
    [within], [after] = random_rows([6]), random_rows([6])
    within[3] = 49
    assert totals(small, [after], 1)[1] == [6]  # five tokens and the eos after them
    assert totals(small, [within], 1)[1] == [5]  # the eos within is the first; the one after is not scored


def test_updates_count_to_the_end(small):
    done = []
    totals(small, random_rows([4, 4, 4, 4, 4]), 3, update=done.append)
    assert done == [3, 5]


@given(st.integers(2, 1024).flatmap(lambda window: st.tuples(st.integers(1, window), st.just(window))))
def test_padded_lengths_leave_room_for_an_eos_and_waste_little(pair):
    length, window = pair
    padded = padded_length(length, window)
    assert padded == window or (length < padded < window and padded in PADDED_LENGTHS)
    assert padded <= max(32, 1.5 * (length + 1))


def test_entropy():
    rows = [[1, 1, 2, 2, 9], [3, 3, 3], [1, 2, 3, 4], [9, 9]]
    np.testing.assert_allclose(unigram_entropies(rows, 9), [np.log(2), 0, np.log(4), 0], atol=1e-9)


def test_texts_are_pooled_cut_and_skipped(judge):
    texts = [" ".join(np.random.default_rng(i).choice(WORDS, 3 * i)) for i in range(1, 9)]
    result = perplexity([*texts, "", " \n\t"], Judge(model=str(judge), batch_size=3, max_length=16))
    assert (result.num_samples, result.num_skipped_empty, result.max_length) == (8, 2, 16)

    rows = load_tokenizer(judge)(texts)["input_ids"]
    rows = [row[:16] for row in rows]
    nll, counts = plain_totals(judge, rows, 50256, 16)
    assert result.num_tokens == counts.sum()
    assert result.ppl == pytest.approx(np.exp(nll.sum() / counts.sum()), rel=1e-5)
    assert result.entropy == pytest.approx(unigram_entropies(rows, 50256).mean())
    written = result.as_dict()
    assert (written["metric"], written["value"], written["entropy"]) == ("ppl", result.ppl, result.entropy)


def test_the_model_window_bounds_max_length(judge):
    text = " ".join(WORDS * 10)
    result = perplexity([text], Judge(model=str(judge), max_length=1024))
    assert (result.max_length, result.num_tokens) == (64, 63)


@pytest.mark.parametrize("texts", [[], ["", "  "], ["<|endoftext|>"]])
def test_nothing_to_score(judge, texts):
    with pytest.raises(InputError, match="nothing to score"):
        perplexity(texts, Judge(model=str(judge), max_length=1 + bool(texts)))


def test_models_and_tokenizers_that_do_not_fit(judge, tmp_path):
    with pytest.raises(InputError, match="max_length 1"):
        perplexity(["a text"], Judge(model=str(judge), max_length=1))
    with pytest.raises(InputError, match="nothing"):
        perplexity(["a text"], Judge(model=str(tmp_path / "nothing")))
    bare = write_gpt2(tmp_path / "bare", 128, 32)
    with pytest.raises(InputError, match=r"bare.*--tokenizer"):
        perplexity(["a text"], Judge(model=str(bare)))
    with pytest.raises(InputError, match=r"50257 .* 128.*--tokenizer"):
        perplexity(["a text"], Judge(model=str(bare), tokenizer=str(judge)))


def test_a_hub_name_without_a_network(monkeypatch):
    monkeypatch.setattr(files, "hub_reachable", lambda: False)
    with pytest.raises(InputError, match=r"gpt2-large.*--model"):
        perplexity(["a text"], Judge("someone/gpt2-large"))


def test_weights_that_are_not_finite_are_reported(judge, monkeypatch):
    monkeypatch.setattr(module, "row_totals", lambda *_, **__: (np.array([np.nan]), np.array([3])))
    with pytest.raises(ElfError, match="nan"):
        perplexity(["a text"], Judge(model=str(judge)))
