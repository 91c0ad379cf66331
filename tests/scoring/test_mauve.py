"""MAUVE: the features are the judge's last states whatever the batches, and MAUVE distinguishes near from far texts."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gpt2_files import write_judge

from elfcli.errors import InputError
from elfcli.models.layers import graphdef_of
from elfcli.scoring import mauve as module
from elfcli.scoring.hf_metrics import hf_metric
from elfcli.scoring.judge import Judge, load_judge, token_rows
from elfcli.scoring.mauve import features, mauve

WORDS = ("the", "old", "man", "dog", "runs", "home", "a", "cat", "sleeps", "slowly")


def texts(seed: int, words=WORDS, count: int = 120) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, rng.integers(3, 9))) for _ in range(count)]


def test_features_and_figure(evaluate, tmp_path, monkeypatch):
    judge = Judge(str(write_judge(tmp_path / "judge")), batch_size=16)
    real, near, far = texts(0), texts(1), texts(2, ("zzz", "qq", "7", "!"))
    found = features(real, judge)
    tokenizer, shape, params, _ = load_judge(judge.model, None)
    model = nnx.merge(graphdef_of(shape.network, shape), params)
    for place in (0, 41):
        (row,) = token_rows(tokenizer, [real[place]], 64)
        states = model(jnp.asarray([row]), jnp.ones((1, len(row)), bool))
        np.testing.assert_allclose(found[place], states[0, -1], atol=1e-5)
    np.testing.assert_allclose(features(real[:50], Judge(judge.model, batch_size=3)), found[:50], atol=1e-5)

    same, nearer, farther = (mauve(part, real, judge) for part in (real, near, far))
    assert same.mauve > 0.99 and same.mauve > nearer.mauve > farther.mauve + 0.2
    assert nearer.num_buckets == 12 and "features:judge" in nearer.signature and "texts:120" in nearer.signature
    loaded = hf_metric("mauve", model=judge.model, batch_size=16)
    assert loaded.compute(predictions=near, references=real)["mauve"] == pytest.approx(nearer.mauve)

    with pytest.raises(InputError, match=" 100 "):
        mauve(real[:50], real, judge)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        mauve(real, near, judge)
