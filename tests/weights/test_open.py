"""Every place that weights can come from: read exactly, named in one line, and refused with both sides named."""

import os
import pickle
import shutil
import sys
import types
import zipfile

import jax
import numpy as np
import pytest
from goldens import load, stored_row
from helpers import GOLDENS, same
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tiny_run import tiny_run

from elfcli.config.render import to_toml
from elfcli.config.resolve import resolve
from elfcli.errors import InputError
from elfcli.models.elf import ElfShape, abstract_params, num_params
from elfcli.runs.folder import LATENTS_FILE, keep_encoder
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.names import PUBLISHED, REPOSITORIES, STUDENTS, checkpoint_paths
from elfcli.weights.open import open_source
from elfcli.weights.reference import elf_to_reference, shape_of
from elfcli.weights.settings import config_of, load_initial_params
from elfcli.weights.source import with_own_encoder
from elfcli.weights.torch_port import elf_from_torch, elf_to_torch


@pytest.fixture(scope="module")
def stored():
    """What the golden checkpoints hold."""
    return load(GOLDENS / "checkpoint_expected.npz")


@pytest.mark.parametrize("kind", ["msgpack", "orbax"])
@pytest.mark.parametrize("inside", ["", "checkpoint_7"])
def test_golden_checkpoints_are_taken_exactly(stored, kind, inside):
    path = GOLDENS / f"checkpoint_{kind}" / inside
    for ema, name in ((True, "ema_params1"), (False, "params")):
        source = open_source(path, ema=ema)
        assert (source.kind, source.step, source.ema) == ("reference", 7, ema)
        assert stored_row(kind, name, elf_to_reference(source.params), stored).holds
        assert ("EMA" if ema else "raw") in source.description and "step 7" in source.description


def test_the_newest_checkpoint_wins_unless_a_step_is_given(tmp_path):
    for step in (7, 12, 9):
        shutil.copy(GOLDENS / "checkpoint_msgpack" / "checkpoint_7", tmp_path / f"checkpoint_{step}")
    (tmp_path / "checkpoint_12").write_bytes(b"damaged")
    assert open_source(tmp_path, step=7).step == 7
    with pytest.raises(InputError, match="checkpoint_12"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"step 8; .*7, 9, 12"):
        open_source(tmp_path, step=8)


@given(st.dictionaries(st.integers(0, 10**6), st.sampled_from(["", "a/", "runs/b/"]), max_size=6))
def test_checkpoints_are_found_at_any_depth(steps):
    paths = [f"{where}checkpoint_{step}{end}" for step, where in steps.items() for end in ("", "/_METADATA")]
    noise = ["README.md", "checkpoint_x", "checkpoint_5.tmp", "my_checkpoint_5"]
    assert checkpoint_paths([*noise, *paths]) == {s: f"{w}checkpoint_{s}" for s, w in steps.items()}


def test_a_run_gives_ema_raw_and_older_weights():
    ema, raw, old = open_source(tiny_run()), open_source(tiny_run(), ema=False), open_source(tiny_run(), step=1)
    assert (ema.step, raw.step, old.step) == (3, 3, 1)
    assert not same(ema.params, raw.params) and not same(ema.params, old.params)
    assert ema.config is not None and ema.kind == "run" and "EMA weights" in ema.description


def test_names_of_the_pytorch_port(tmp_path):
    params = open_source(GOLDENS / "checkpoint_msgpack").params
    state = elf_to_torch(params)
    flat = elf_to_reference(params)
    assert np.array_equal(state["blocks.0.attn.qkv.weight"], flat["blocks_0/attn/qkv/kernel"].T)
    assert np.array_equal(state["blocks.3.norm1.weight"], flat["blocks_3/norm1/weight"])
    assert state["unembed_kernel"].shape == flat["unembed_kernel"].shape
    assert same(elf_from_torch(state), params)
    wrapped = {f"_orig_mod.{k.replace('mlp_', 'mlp.')}": v for k, v in state.items()}
    wrapped["feat_rope.freqs_cos"] = np.zeros((3, 2), np.float32)
    assert same(elf_from_torch(wrapped), params)
    save_file(state, tmp_path / "elf.safetensors")
    for spec in (tmp_path, tmp_path / "elf.safetensors"):
        source = open_source(spec)
        assert source.kind == "torch" and "PyTorch" in source.description and same(source.params, params)


def test_pt_files_are_read_weights_only_and_need_torch(tmp_path, monkeypatch):
    state, asked = elf_to_torch(open_source(GOLDENS / "checkpoint_msgpack").params), {}

    class Tensor:
        def __init__(self, array):
            self.array = array

        def float(self):
            return self

        def numpy(self):
            return self.array

    def load(path, **options):
        asked.update(options)
        return {"model": {}, "ema": {name: Tensor(array) for name, array in state.items()}}

    (tmp_path / "elf.pt").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="PyTorch"):
        open_source(tmp_path / "elf.pt")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    source = open_source(tmp_path / "elf.pt")
    assert asked["weights_only"] is True and source.ema and same(elf_to_torch(source.params), state)

    folder = tmp_path / "port"
    folder.mkdir()
    with zipfile.ZipFile(folder / "checkpoint_500", "w") as archive:  # as torch.save writes
        archive.writestr("archive/data.pkl", b"")
    for spec in (folder, folder / "checkpoint_500"):
        source = open_source(spec)
        assert (source.kind, source.step, source.ema) == ("torch", 500, True)
    assert open_source(folder, step=500).step == 500
    with pytest.raises(InputError, match="500"):
        open_source(folder / "checkpoint_500", step=400)


def test_a_wrong_size_names_both_sides():
    source = open_source(GOLDENS / "checkpoint_msgpack")
    with pytest.raises(InputError, match=r"depth 4, .* depth 12") as error:
        config_of(source, task="owt")
    assert "\n" not in str(error.value)
    small = ["hidden_size=48", "depth=4", "num_heads=4", "bottleneck_dim=16"]
    assert config_of(source, task="owt", sets=small).data.max_length == 1024


def test_a_checkpoint_without_settings_asks_for_them():
    with pytest.raises(InputError, match="--task"):
        config_of(open_source(GOLDENS / "checkpoint_msgpack"))


@pytest.mark.parametrize(("name", "choice"), PUBLISHED.items())
def test_published_names_bring_their_recipe(name, choice):
    task, model = choice
    network = {"ELF-B": (12, 768, 12), "ELF-M": (24, 1056, 16), "ELF-L": (32, 1280, 16)}[model]
    shape = ElfShape(512, 32100, *network)
    repository = REPOSITORIES.get(name, name)
    place = repository if "/" in repository else f"embedded-language-flows/{repository}"
    for written in (f"{place}@main", f"/copies/{place.partition('/')[2]}", name):
        config = config_of(types.SimpleNamespace(config_file=None, name=written, shape=shape))
        assert (config.data.task, config.network.model) == (task, model)
    if STUDENTS.get(name) == "refine":
        (only,) = config.sampling
        assert (only.sampling_method, only.num_sampling_steps[0], only.self_cond_scales) == ("refine", 8, (3.0,))
    elif name in STUDENTS:
        first, more = config.sampling
        assert (first.num_sampling_steps[0], first.sde_gamma, first.self_cond_scales) == (8, 1.5, (2.5,))
        assert (more.num_sampling_steps, more.sde_gamma) == ((16, 32), 2.0)


def test_published_parameter_counts():
    """From shapes alone: T5-small latents and vocabulary."""
    counts = {}
    for model, network in {"B": (12, 768, 12), "M": (24, 1056, 16), "L": (32, 1280, 16)}.items():
        shape = ElfShape(512, 32100, *network)
        params = abstract_params(shape)
        counts[model] = round(num_params(params) / 1e6, 1)
        assert vars(shape_of(params)) == vars(shape)
    assert counts["B"] == 104.6 and round(counts["M"]) == 342 and round(counts["L"]) == 652


def test_initial_params_fit_or_name_what_does_not():
    source = open_source(tiny_run())
    assert same(load_initial_params(tiny_run(), source.shape), source.params)
    wider = ElfShape(**{**vars(source.shape), "vocab_size": 40})
    with pytest.raises(InputError, match=r"vocab_size 26, .* vocab_size 40"):
        load_initial_params(tiny_run(), wider)
    elsewhere = ElfShape(**{**vars(source.shape), "text_position": None})
    with pytest.raises(InputError, match=r"text_position 8, .* text_position None"):
        load_initial_params(tiny_run(), elsewhere)


def test_what_is_not_a_checkpoint_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        save_file({"x": np.zeros(1, np.float32)}, tmp_path / "two" / f"{name}.safetensors")
    cases = {
        tmp_path: "checkpoint_<step>",
        tmp_path / "notes.txt": "flax",
        tmp_path / "two": "checkpoint_<step>",
        tmp_path / "two" / "a.safetensors": "parameter tree",
        tmp_path / "note.txt": "'notes.txt'",
        "ELF-B-own": "'ELF-B-owt'",
    }
    for spec, part in cases.items():
        with pytest.raises(InputError, match=part) as error:
            open_source(spec)
        assert "\n" not in str(error.value)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_runs_nothing(tmp_path):
    file, mark = tmp_path / "encoder.pkl", tmp_path / "run"
    file.write_bytes(pickle.dumps({"params": {"x": Malicious(mark)}}))
    with pytest.raises(InputError, match=r"posix\.mkdir"):
        read_encoder_pickle(file)
    assert not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists(), "the pickle is one that would have run"


def test_the_golden_encoder_pickle_is_taken_exactly():
    found = read_encoder_pickle(GOLDENS / "encoder.pkl")
    assert stored_row("encoder.pkl", "params", found, load(GOLDENS / "t5_encoder.npz")).holds


def test_a_jax_array_in_the_pickle_is_an_array(tmp_path):
    array = jax.numpy.arange(6.0).reshape(2, 3)
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps({"params": {"a": {"b": array}}}))
    assert np.array_equal(read_encoder_pickle(tmp_path / "encoder.pkl")["a/b"], array)


@pytest.mark.parametrize("name", ["encoder", "vectors"])
def test_a_run_has_its_own_copy_of_the_datas_encoder(tmp_path, name):
    (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / name / "config.json").write_text("first")
    (tmp_path / "run").mkdir()
    resolved = resolve(sets=[f"encoder_model_name={tmp_path / 'data' / name}"], environ={})
    (tmp_path / "run" / "config.toml").write_text(to_toml(resolved))
    settings = resolved.config
    assert with_own_encoder(settings, tmp_path / "run") == settings, "nothing is copied yet"
    keep_encoder(settings.encoder.encoder_model_name, tmp_path / "run")
    assert not (tmp_path / "run" / name).exists(), "an encoder of another kind may be large, and is not copied"
    (tmp_path / "data" / name / LATENTS_FILE).touch()
    keep_encoder(settings.encoder.encoder_model_name, tmp_path / "run")
    (tmp_path / "data" / name / "config.json").write_text("another")
    kept = with_own_encoder(settings, tmp_path / "run").encoder.encoder_model_name
    assert kept == str(tmp_path / "run" / name) and (tmp_path / "run" / name / "config.json").read_text() == "first"
    keep_encoder("google-t5/t5-small", tmp_path / "run")
    for set_by_hand in ("google-t5/t5-small", str(tmp_path / "elsewhere" / name)):
        other = resolve(sets=[f"encoder_model_name={set_by_hand}"], environ={}).config
        assert with_own_encoder(other, tmp_path / "run") == other


def test_a_folder_of_a_repository_is_opened(hub, tmp_path, monkeypatch):
    params = open_source(GOLDENS / "checkpoint_msgpack").params
    save_file(elf_to_torch(params), tmp_path / "elf.safetensors")
    content = (tmp_path / "elf.safetensors").read_bytes()
    files = {f"t5/{name}/ckpt.safetensors": content for name in ("elf-mmd", "elf-mmd-ird")}
    hub.add("yresearch/ELF-MMD-OWT", files | {"README.md": b""})
    for name in ("ELF-B-MMD-IRD-owt", "yresearch/ELF-MMD-OWT/t5/elf-mmd-ird"):
        source = open_source(name)
        assert source.from_hub and same(source.params, params)
    assert not any("elf-mmd/ckpt" in request for request in hub.requests), "the other folder is not fetched"
    with pytest.raises(InputError, match="has no folder t5/elf-mdm"):
        open_source("yresearch/ELF-MMD-OWT/t5/elf-mdm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert same(open_source("yresearch/ELF-MMD-OWT/t5/elf-mmd-ird").params, params)
    with pytest.raises(InputError, match="not in the cache"):
        open_source("ELF-B-MMD-owt")
