"""Encoders against transformers' own outputs (tests/goldens/encoders), in each format of weights; what is refused."""

import json
import pickle
import shutil
import tomllib
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from elfcli.config.presets import encoder_path, presets_dir
from elfcli.config.resolve import load_config, resolve
from elfcli.config.schema import EncoderSettings
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.errors import InputError
from elfcli.models.encoder import encode_with
from elfcli.planning.programs import abstract_encoder
from elfcli.runs.folder import read_metrics
from elfcli.training.start import start_run
from elfcli.weights.encoder import encoder_arrays, encoder_shape, known_encoder, load_encoder, read_encoder
from elfcli.weights.files import weights
from elfcli.weights.pickles import read_torch

ENCODERS = Path(__file__).parent.parent / "goldens" / "encoders"
KINDS = ("t5_v1_1", "byt5", "mt5", "umt5", "t5gemma", "t5gemma2", "gpt2")
"""Of mT5 a PyTorch file, of ByT5 an older one in float16, of T5 v1.1 two in bfloat16; of the others safetensors."""


def latents(folder: Path, ids, mask_BxS):
    shape, params = read_encoder(str(folder))
    return np.asarray(
        jax.jit(encode_with(shape))(params, ids, np.broadcast_to(mask_BxS[:, None], (*ids.shape, ids.shape[1])))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_latents_equal_those_of_transformers(kind):
    golden = np.load(ENCODERS / kind / "expected.npz")
    out, valid = latents(ENCODERS / kind, golden["ids"], golden["mask"]), golden["mask"]
    np.testing.assert_allclose(out[valid], golden["out"][valid], atol=1e-5 * np.abs(golden["out"]).max())


def flax_names(arrays: dict) -> dict:
    """Rename PyTorch's arrays to flax's: kernels are transposed, also GPT-2's."""
    tree = {}
    for name, array in arrays.items():
        *parts, last = name.split(".")
        if last == "weight":
            norm, table = array.ndim == 1, parts[-1] in ("shared", "wte", "wpe", "relative_attention_bias")
            last = ("scale" if "ln_" in parts[-1] else "weight") if norm else "embedding" if table else "kernel"
        tree[*parts, last] = array.T if last == "kernel" else array
    return unflatten_dict(tree)


@pytest.mark.parametrize("kind", ["umt5", "gpt2"])
def test_flax_weights_are_those_of_safetensors(tmp_path, kind):
    shutil.copy(ENCODERS / kind / "config.json", tmp_path)
    arrays = load_file(ENCODERS / kind / "model.safetensors")
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack_serialize(flax_names(arrays)))
    found = weights(str(tmp_path), "encoder")
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)
    jax.tree.map(np.testing.assert_array_equal, read_encoder(str(tmp_path)), read_encoder(str(ENCODERS / kind)))


@pytest.mark.parametrize("kind", ["mt5", "umt5", "t5gemma2"])
def test_an_exported_encoder_is_the_same_without_its_decoder(tmp_path, kind):
    shutil.copy(ENCODERS / kind / "config.json", tmp_path)
    arrays = encoder_arrays(str(ENCODERS / kind))
    assert not [name for name in arrays if "decoder" in name or "vision" in name or "lm_head" in name]
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read_encoder(str(tmp_path))[1], read_encoder(str(ENCODERS / kind))[1])


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("umt5", {"model_type": "bert"}, "'bert' cannot be the encoder.* umt5, t5gemma, t5gemma2, gpt2"),
        ("umt5", {"model_type": "mt5"}, r"rel_embedding is \(2, 8, 2\) in the weights, but \(8, 2\)"),
        ("umt5", {"feed_forward_proj": "gated-silu"}, "gated-silu"),
        ("umt5", {"num_layers": 3}, r"\(2, 16\) in the weights, but \(3, 16\) by its config.json"),
        ("gpt2", {"n_layer": 3}, "h.2.ln_1.weight' is missing from the weights of this gpt2 model"),
        ("gpt2", {"activation_function": "relu"}, "'relu'"),
    ],
)
def test_what_the_network_does_not_have_is_refused(tmp_path, kind, change, message):
    folder = Path(shutil.copytree(ENCODERS / kind, tmp_path / kind))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        read_encoder(str(folder))


@pytest.mark.parametrize(("change", "message"), [
    ({"hidden_activation": "silu"}, "hidden_activation 'silu'"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
])  # fmt: skip
def test_what_t5gemma_does_not_have_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        encoder_shape({"model_type": "t5gemma", "encoder": change}, Path("config.json"))


def test_more_tokens_than_positions_are_refused():
    encoder = load_encoder(EncoderSettings(encoder_model_name=str(ENCODERS / "gpt2")), 40)
    ids = np.ones((1, 17), np.int32)
    with pytest.raises(InputError, match="16 positions, but sequences have 17 tokens"):
        encoder.apply(encoder.params, ids, np.ones((1, 17, 17), bool))


class Hostile:
    def __reduce__(self):
        return print, ("run",)


def test_a_pytorch_file_that_asks_for_anything_else_is_refused_unread(tmp_path, capsys):
    """In each of the two formats, also if its tensors lie outside their storages, or if it is damaged."""
    with zipfile.ZipFile(tmp_path / "new.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Hostile()}, 2))
    (tmp_path / "old.bin").write_bytes(pickle.dumps(Hostile(), 2))
    whole = (ENCODERS / "mt5" / "pytorch_model.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(whole[: len(whole) // 2])
    for name in ("new.bin", "old.bin", "cut.bin"):
        with pytest.raises(InputError, match=name):
            read_torch(tmp_path / name)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(("offset", "shape", "strides"), [(3, (2,), (1,)), (0, (2, 2), (4, 1)), (0, (9,), (0,)),
                                                          (-1, (2,), (1,)), (3, (2,), (-1,))])  # fmt: skip
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    from elfcli.weights import pickles

    storage = pickles.Storage(np.dtype(np.float32), "0")
    (tmp_path / "a.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    with pytest.raises(ValueError, match="not within its storage"):
        pickles._array(tmp_path / "a.bin", pickles.Tensor(storage, offset, shape, strides), (0, 16))
    inside = pickles.Tensor(storage, 0, (2, 2), (1, 2))
    assert pickles._array(tmp_path / "a.bin", inside, (0, 16)).tolist() == [[0, 2], [1, 3]]


def test_known_sizes_are_those_of_the_published_models():
    """Parameters of the encoder as its authors count them; the two of T5Gemma from the sizes of their files."""
    shape = known_encoder("google/t5gemma-2-270m-270m")
    assert (shape.width, sum(shape.sliding), len(shape.sliding), shape.window) == (640, 15, 18, (255, 256))
    assert known_encoder("t5-small") == known_encoder("google-t5/t5-small") and known_encoder("my/t5-small") is None
    assert known_encoder("google/umt5-small").layer_bias and not known_encoder("google/mt5-small").layer_bias


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("t5-small", 35_330_816),
        ("google/mt5-small", 146_940_608),
        ("google/umt5-small", 150_153_216),
        ("google/t5gemma-s-s-ul2", 152_060_416),
    ],
)
def test_known_encoders_have_as_many_parameters_as_the_published_ones(name, count):
    """`elf plan` knows them without a download; 262,144 tokens of T5Gemma 2 are most of its parameters."""
    config = resolve(sets=[f"encoder_model_name={name}"], environ={}).config
    encoder = abstract_encoder(config, 1000, "cpu")
    assert sum(leaf.size for leaf in jax.tree.leaves(encoder.params)) == count


def test_every_listed_encoder_has_a_shape_and_every_preset_names_one_of_them():
    listed = tomllib.loads((presets_dir() / "encoder_sizes.toml").read_text())
    names = [name for family in listed.values() for name in family["names"]]
    assert all(known_encoder(name).width for name in names)
    for file in (presets_dir() / "encoders").glob("*.toml"):
        settings = resolve(files=[file], environ={}).config.encoder
        assert settings.encoder_model_name in names and settings.latent_std == "measure"
        assert encoder_path(settings.encoder_model_name) == file


def test_an_encoders_preset_lies_between_the_task_and_what_is_set():
    found = resolve(task="owt", sets=["encoder_model_name=google/t5gemma-2-270m-270m"], environ={})
    assert found.config.encoder.latent_mean == found.config.encoder.latent_std == "measure"
    assert "encoders/t5gemma-2" in found.origins["latent_std"].place()
    own = resolve(task="owt", sets=["encoder_model_name=models/gpt2-medium", "latent_std=0.3"], environ={}).config
    assert (own.encoder.latent_mean, own.encoder.latent_std, own.data.pad_token) == ("measure", 0.3, "eos")
    for name in ("google-t5/t5-small", "google-t5/t5-base", "my/gpt2x", "embedding"):
        assert resolve(task="owt", sets=[f"encoder_model_name={name}"], environ={}).config.encoder.latent_std == 0.2


@pytest.mark.parametrize("kind", ["t5gemma2", "gpt2"])
def test_elf_is_trained_on_the_latents(tmp_path, kind):
    """A hundred steps on a tiny random encoder, with pairs; the latents are measured, and the loss falls."""
    folder = Path(shutil.copytree(ENCODERS / kind, tmp_path / kind))
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"input": f"{i % 7} a", "output": f"{i % 5} b"}) + "\n" for i in range(64))
    )
    tokenize(Job(tmp_path / "data", inputs=(str(tmp_path / "pairs.jsonl"),), source_key="input", target_key="output",
                 train_tokenizer=14))  # fmt: skip
    shutil.copytree(tmp_path / "data" / "tokenizer", folder, dirs_exist_ok=True)
    sets = ["hidden_size=16", "depth=1", "num_heads=2", "bottleneck_dim=8", "max_length=12", "max_input_length=6",
            "steps=100", "batch_size=16", "num_workers=0", "optimizer=adamw", "lr=0.01", "warmup_steps=1",
            "num_held_out=0", "num_live_samples=0", "save_every_steps=100", "log_every_steps=50",
            f"encoder_model_name={folder}"]  # fmt: skip
    run = start_run(resolve(sets=sets, flags={"data_path": str(tmp_path / "data")}, environ={}), tmp_path / "run")
    encoder, rows = load_config(run / "config.toml").encoder, read_metrics(run)
    assert isinstance(encoder.latent_mean, float) and 0.3 < encoder.latent_std < 3
    assert rows[-1]["step"] == 100 and rows[-1]["loss"] < 0.8 * rows[0]["loss"]
