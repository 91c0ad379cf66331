"""Token vectors from what occurs together: translations are near each other, and nothing breaks on odd data."""

import numpy as np
import pytest

from elfcli.data.batches import TokenTable, column_from_rows
from elfcli.recipe import cooccurrence
from elfcli.recipe.cooccurrence import (
    CHUNK,
    VECTOR_WIDTH,
    information,
    neighbor_information,
    running_text,
    token_chunks,
    token_vectors,
)


def pairs(count: int, words: int) -> TokenTable:
    """Sources of five neighbours on a ring of `words` words; word i is words + i in targets, whose order is another."""
    rng = np.random.default_rng(0)
    sources = [rng.permutation((start + np.arange(5)) % words) for start in rng.integers(words, size=count)]
    return TokenTable(column_from_rows([words + rng.permutation(s) for s in sources]), column_from_rows(sources))


@pytest.mark.parametrize("small", [0, cooccurrence.SMALL])
def test_a_word_is_near_its_translation(small, monkeypatch):
    monkeypatch.setattr(cooccurrence, "SMALL", small)
    words, unseen = 60, 3
    table = token_vectors(pairs(2000, words), 2 * words + unseen, seed=0)
    assert table.shape == (2 * words + unseen, VECTOR_WIDTH) and table.dtype == np.float32
    np.testing.assert_allclose(np.mean(table**2, axis=1), 1, atol=1e-5)
    near = table[:words] @ table[words : 2 * words].T / VECTOR_WIDTH
    assert np.mean(np.diag(near)) > 0.2 > 5 * abs(near.mean())
    np.testing.assert_array_equal(table, token_vectors(pairs(2000, words), 2 * words + unseen, seed=0))


@pytest.mark.parametrize("small", [0, cooccurrence.SMALL])
def test_a_word_of_a_free_text_is_near_those_that_fit_in_its_place(small, monkeypatch):
    monkeypatch.setattr(cooccurrence, "SMALL", small)
    rng = np.random.default_rng(0)
    kinds = np.arange(60).reshape(3, 20)  # a text takes a word of each kind in turn
    table = TokenTable(column_from_rows([[rng.choice(kinds[i % 3]) for i in range(6)] for _ in range(6000)]))
    vectors = token_vectors(table, 90, seed=0)
    np.testing.assert_allclose(np.mean(vectors**2, axis=1), 1, atol=1e-5)
    near = (vectors @ vectors.T)[:60, :60] / VECTOR_WIDTH
    same = np.repeat(np.eye(3), 20, 0).repeat(20, 1) - np.eye(60) > 0
    assert np.abs(vectors[:60] @ vectors[60:].T / VECTOR_WIDTH).mean() < 0.2, "unused tokens are random"
    assert near[same].mean() > 0.2 > 5 * abs(near[~same & ~np.eye(60, dtype=bool)].mean())


def test_neighbors_are_counted_on_both_sides(monkeypatch):
    monkeypatch.setattr(cooccurrence, "SMOOTHING", 1.0)
    running = running_text(TokenTable(column_from_rows([[0, 1], [0, 0]])), 2)
    assert running.tolist() == [2, 0, 1, 2, 0, 0, 2]
    found = neighbor_information(running, 2).toarray()
    before, after = np.array([[1, 0, 2], [1, 0, 0]]), np.array([[1, 1, 1], [0, 0, 1]])
    ends = np.array([[1, 1, 0], [2, 0, 0]])  # what stands before and after an end of text
    for counts, end, part in ((before, ends[0], found[:, :3]), (after, ends[1], found[:, 3:])):
        share = np.vstack([counts, end]) / 6
        with np.errstate(divide="ignore"):
            expected = np.log(share / np.outer(share.sum(1), share.sum(0)))
        np.testing.assert_allclose(part, np.maximum(expected, 0)[:2], atol=1e-12)


def test_information_is_that_of_the_definition(monkeypatch):
    monkeypatch.setattr(cooccurrence, "SMOOTHING", 1.0)
    found = information(iter([np.array([0, 1]), np.array([0, 1]), np.array([1, 2])]), 4).toarray()
    together = np.array([[0, 2, 0, 0], [2, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    share = together / together.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.log(share / np.outer(share.sum(0), share.sum(1)))
    np.testing.assert_allclose(found, np.where(np.isfinite(expected), np.maximum(expected, 0), 0))


def test_long_pairs_are_cut_into_parts_that_stand_beside_each_other():
    source, target = np.arange(2 * CHUNK), 100 + np.arange(6)
    found = list(token_chunks(TokenTable(column_from_rows([target]), column_from_rows([source]))))
    assert [part.tolist() for part in found] == [
        [*range(CHUNK), 100, 101, 102],
        [*range(CHUNK, 2 * CHUNK), 103, 104, 105],
    ]


@pytest.mark.parametrize("rows", [[[0]], [[], []], [[1, 1, 1]]])
def test_data_in_which_nothing_occurs_together(rows):
    table = token_vectors(TokenTable(column_from_rows(rows)), 5, seed=0)
    assert np.isfinite(table).all() and len(np.unique(table, axis=0)) == 5
