"""The n-gram judge against a plain computation in dictionaries, and what it says of real and of shuffled texts."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from tiny_run import tiny_run

from elfcli.data.folder import load_examples
from elfcli.errors import InputError
from elfcli.scoring.judge import NGRAM, Judge
from elfcli.scoring.ngram import fit, load_ngram_judge, next_nll, pooled_entropy, row_totals
from elfcli.scoring.perplexity import METRIC, perplexity
from elfcli.scoring.score import ScoreOptions, Texts

TRAIN = [[0, 1, 2], [0, 1], [3, 1, 2, 2, 0], [2]]
EDGE, VOCABULARY = 4, 4


def plain_probability(history: tuple, token: int) -> float:
    """P(token | history) straight from the formula, by recursion."""
    followers: dict = defaultdict(Counter)
    for row in TRAIN:
        padded = [EDGE] * len(history) + [*row, EDGE]
        for i in range(len(history), len(padded)):
            followers[tuple(padded[i - len(history) : i])][padded[i]] += 1
    shorter = plain_probability(history[1:], token) if history else 1 / (VOCABULARY + 1)
    counts = followers[history]
    distinct = len(counts)
    return (counts[token] + distinct * shorter) / (counts.total() + distinct) if distinct else shorter


@pytest.mark.parametrize("order", [3, 5])
def test_probabilities_are_those_of_the_formula(order):
    model, rows = fit(TRAIN, VOCABULARY, order), [[0, 1, 0], [3, 3], [], [2, 2, 2, 1]]
    expected, edges = [], [EDGE] * (order - 1)
    for row in rows:
        padded = [*edges, *row, EDGE]
        histories = [tuple(padded[i : i + order - 1]) for i in range(len(row) + 1)]
        expected.append([plain_probability(*pair) for pair in zip(histories, [*row, EDGE], strict=True)])
    np.testing.assert_allclose(np.exp(-next_nll(model, rows)), np.concatenate(expected), rtol=1e-12)
    nll, counts = row_totals(model, rows)
    np.testing.assert_allclose(nll, [-np.log(row).sum() for row in expected], rtol=1e-12)
    assert counts.tolist() == [4, 3, 1, 5]
    after_01 = [np.exp(-next_nll(model, [[0, 1, token]])[2]) for token in range(4)]
    assert sum(after_01) + np.exp(-next_nll(model, [[0, 1]])[2]) == pytest.approx(1)


def test_a_large_vocabulary_lowers_the_order():
    """Each n-gram is one int64."""
    for size, order in ((60, 6), (4_000, 5), (32_128, 4), (150_000, 3)):
        model = fit([[0, size - 1, size - 1], [size - 1]], size, 6)
        assert len(model.orders) == order
        assert np.exp(-next_nll(model, [[0, size - 1]]))[1] > 0.5, "seen every time after this beginning"


def test_the_entropy_is_of_all_tokens_together():
    assert pooled_entropy([[0, 1], [1, 2], []]) == pytest.approx(1.5 * np.log(2))


def test_training_texts_score_better_than_their_words_in_another_order():
    """Also: real text and samples are compared over equally many texts, and the signature names what was counted."""
    data = str(tiny_run().parent / "data")
    judge = Judge(NGRAM, data=data)
    texts = [f"one word {i} and {j}" for i in range(3) for j in range(3)]
    shuffled = [f"and {i} word one {j}" for i in range(3) for j in range(3)]
    good, bad = (perplexity(some, judge) for some in (texts, shuffled))
    assert good.ppl < bad.ppl / 5 and good.entropy == pytest.approx(bad.entropy, abs=1e-9)
    examples = load_examples(data)
    assert f"counted:{examples.fingerprint}" in good.signature and "protocol:custom (judge)" in good.signature
    scored = METRIC.compute(Texts(texts, real=texts[:4]), ScoreOptions(judge=judge))
    assert "entropy:of 4 texts" in scored.signature and scored.real["entropy"] == pytest.approx(scored.entropy)
    assert scored.ppl == pytest.approx(good.ppl)
    assert load_ngram_judge(data).num_tokens == examples.tokens.input_ids.lengths().sum()


def test_missing_training_texts_are_named():
    with pytest.raises(InputError, match="data_path"):
        METRIC.check(10, 0, Judge(NGRAM))
    with pytest.raises(InputError, match="nowhere is not here"):
        METRIC.check(10, 0, Judge(NGRAM, data="./nowhere"))
