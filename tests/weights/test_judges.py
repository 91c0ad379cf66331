"""Judges of the Llama family against transformers' own outputs (tests/goldens/judges), and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from elfcli.errors import InputError
from elfcli.parallel.hashes import tree_hash
from elfcli.scoring.perplexity import score_tokens
from elfcli.weights import files as huggingface
from elfcli.weights import judges
from elfcli.weights.judges import load_judge_network

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
        ({"model_type": "mamba"}, "'mamba'.* gpt2, llama, qwen2, qwen3"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_type 'llama3'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"num_hidden_layers": 3}, "'model.layers.2.input_layernorm.weight' .*llama"),
    ],
)
def test_what_the_network_does_not_have_is_refused(tmp_path, change, message):
    folder = tmp_path / "judge"
    shutil.copytree(JUDGES / "llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_judge_network(str(folder))


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def sharded(tmp_path) -> Path:
    """The Llama of the goldens, its arrays shared out over two files as transformers does."""
    folder = Path(shutil.copytree(JUDGES / "llama", tmp_path / "sharded", ignore=shutil.ignore_patterns("model.*")))
    arrays = load_file(JUDGES / "llama" / "model.safetensors")
    place = {name: SHARDS[number % 2] for number, name in enumerate(sorted(arrays))}
    for shard in SHARDS:
        save_file({name: arrays[name] for name in arrays if place[name] == shard}, folder / shard)
    index = {"metadata": {"total_size": 0}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_judge_in_shards_equals_the_one_in_a_single_file(sharded, hub):
    shape, params = load_judge_network(str(JUDGES / "llama"))
    hub.add("org/judge", {path.name: path.read_bytes() for path in sharded.iterdir()})
    for name in (str(sharded), "org/judge"):
        own_shape, own = load_judge_network(name)
        assert own_shape == shape and tree_hash(own) == tree_hash(params)
    hub.server.shutdown()  # and from the cache, once the Hub no longer answers
    hub.server.server_close()
    assert tree_hash(load_judge_network("org/judge")[1]) == tree_hash(params)


def test_a_missing_shard_is_named_before_anything_is_read(sharded, hub, monkeypatch):
    hub.add("org/judge", {path.name: path.read_bytes() for path in sharded.iterdir() if path.name != SHARDS[1]})
    (sharded / SHARDS[1]).unlink()
    monkeypatch.setattr(huggingface, "read_safetensors", lambda path: pytest.fail("read before all were there"))
    for name in (str(sharded), "org/judge"):
        with pytest.raises(InputError, match=SHARDS[1]):
            load_judge_network(name)
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"judge.*model\.safetensors"):
        load_judge_network(str(sharded))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_arrays_of_the_blocks_are_let_go_while_they_are_stacked(kind, monkeypatch):
    """Otherwise a judge takes twice its size in memory to load."""
    read = []
    monkeypatch.setattr(judges, "weights", lambda *given: read.append(huggingface.weights(*given)) or read[0])
    load_judge_network(str(JUDGES / kind if kind == "llama" else JUDGES.parent / "gpt2"))
    assert read[0] and not [name for name in read[0] if ".0." in name]
