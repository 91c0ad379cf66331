"""Judges of the Llama family against transformers' own outputs (tests/goldens/judges), and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from elfcli.errors import InputError
from elfcli.evaluation.perplexity import score_tokens
from elfcli.hub.judges import load_judge_network

JUDGES = Path(__file__).parent.parent / "goldens" / "judges"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_golden_likelihoods_of_transformers(kind):
    expected = np.load(JUDGES / kind / "expected.npz")
    shape, params = load_judge_network(str(JUDGES / kind))
    ids = expected["ids"]
    mask = np.ones(ids.shape, bool)
    mask[0, 12:] = False  # padding changes nothing before it
    nll, _ = score_tokens(shape, params, ids, mask, eos_id=-1)
    assert nll[1:] == pytest.approx(expected["nll"][1:], rel=1e-5, abs=1e-5)
    assert nll[0, :11] == pytest.approx(expected["nll"][0, :11], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' cannot judge here; these can: gpt2, llama, qwen2, qwen3"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_type 'llama3' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"num_hidden_layers": 3}, "'model.layers.2.input_layernorm.weight' is missing from this llama model"),
    ],
)
def test_what_the_network_does_not_have_is_refused(tmp_path, change, message):
    folder = tmp_path / "judge"
    shutil.copytree(JUDGES / "llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_judge_network(str(folder))
