"""An exported folder: complete, portable, without secrets, and equivalent to the run it came from."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import GOLDENS, same
from huggingface_hub import ModelCard
from safetensors.numpy import load_file
from tiny_run import tiny_run

from elfcli.config.resolve import load_config
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.errors import InputError
from elfcli.publishing import export as export_module
from elfcli.publishing.export import ALLOWED, ExportOptions, export
from elfcli.publishing.push import files_to_upload
from elfcli.runs.secrets import SECRET
from elfcli.sampling.model import load_model
from elfcli.weights.encoder import load_encoder
from elfcli.weights.names import read_export_note
from elfcli.weights.open import open_source
from elfcli.weights.reference import elf_to_reference
from elfcli.weights.settings import config_of


@pytest.fixture
def run(tmp_path):
    """A copy of the tiny run, with an evaluation of its last step."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run(), folder)
    result = {
        "setting": {"sampler": "ode", "steps": 64, "cfg": 2.0, "w": 1.0, "time_schedule": "uniform", "gamma": 0.0},
        **{"step": 3, "seed": 5, "num_samples": 8, "seconds": 1.0},
        "scores": [{"metric": "bleu", "value": 12.5, "num_samples": 8, "signature": "nrefs:1|case:lc"}],
    }
    for name, entries in {"now": [result], "old": [{**result, "step": 2}], "broken": "no json"}.items():
        (folder / "eval" / name).mkdir(parents=True)
        text = entries if isinstance(entries, str) else json.dumps(entries)
        (folder / "eval" / name / "results.json").write_text(text)
    return folder


def exported(run, folder, **options) -> Path:
    source = open_source(run)
    return export(source, config_of(source), folder, ExportOptions(**options))


def test_an_export_gives_back_the_run(run, tmp_path):
    folder = exported(run, tmp_path / "out")
    ours, theirs = open_source(run), open_source(folder)
    assert (theirs.kind, theirs.step, theirs.ema) == ("exported", 3, True) and same(ours.params, theirs.params)
    assert vars(open_source(folder / "model.safetensors").shape) == vars(theirs.shape) == vars(ours.shape)
    flat = load_file(folder / "model.safetensors")
    assert flat.keys() == elf_to_reference(ours.params).keys()
    assert all(array.dtype == np.float32 for array in flat.values())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {path.as_posix() for path in files_to_upload(folder)}, "nothing but what may be uploaded"
    assert {"README.md", "config.toml", "model.safetensors", "sampling.yaml", "tokenizer/tokenizer.json"} <= files


def test_nothing_of_this_machine_is_in_it(run, tmp_path):
    text = (run / "config.toml").read_text()
    text = re.sub(r"# (init_from|eval_data_path) is not set.*", rf'\1 = "{tmp_path}/\1"', text)
    (run / "config.toml").write_text(text)
    folder = exported(run, tmp_path / "out")
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(tiny_run().parent).encode() not in path.read_bytes(), path
            assert str(tmp_path).encode() not in path.read_bytes(), path
    before, after = load_config(run / "config.toml"), load_config(folder / "config.toml")
    assert (after.training.init_from, after.data.eval_data_path) == ("init_from", "eval_data_path")
    assert after.data.data_path == "data" and Path(before.data.data_path).is_absolute()
    for section in ("network", "objective", "optimization", "encoder"):
        assert getattr(after, section) == getattr(before, section)
    assert after.sampling == before.sampling


def test_the_card_is_one_that_the_hub_reads(run, tmp_path):
    folder = exported(run, tmp_path / "out", name="org/toy", license="cc-by-4.0")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0" and card.data.pipeline_tag == "translation"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("bleu", 12.5, "data")
    assert result.metric_args["seed"] == 5 and result.metric_args["num_sampling_steps"] == 64
    for text in ("elf sample --checkpoint org/toy", "2605.10938", "12.50", "nrefs:1 case:lc", "adamw, lr 0.01"):
        assert text in card.text
    assert yaml.safe_load((folder / "sampling.yaml").read_text())[0]["num_sampling_steps"] == [32]


def test_figures_of_other_weights_are_not_claimed(run, tmp_path):
    source = open_source(run, ema=False)
    export(source, config_of(source), tmp_path / "raw")
    card = ModelCard.load(tmp_path / "raw" / "README.md")
    assert card.data.eval_results is None and "12.50" not in card.text and "Raw weights" in card.text
    assert read_export_note(tmp_path / "raw" / "model.safetensors") == {"step": 3, "weights": "raw", "text_position": 8}


def test_the_same_weights_give_the_same_bytes(run, tmp_path):
    """Otherwise every upload would send them again."""
    one, two = exported(run, tmp_path / "same"), exported(run, tmp_path / "other" / "same")
    for path in one.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (two / path.relative_to(one)).read_bytes()


def test_names_of_the_pytorch_port_are_written_and_read(run, tmp_path):
    folder = exported(run, tmp_path / "out", torch_names=True)
    assert "blocks.0.attn.qkv.weight" in load_file(folder / "model.safetensors")
    source = open_source(folder)
    assert same(source.params, open_source(run).params) and source.config is not None


def test_every_kept_checkpoint(run, tmp_path):
    folder = exported(run, tmp_path / "out", steps="all")
    for step in (1, 2, 3):
        assert same(open_source(folder, step=step).params, open_source(run, step=step).params)
    with pytest.raises(InputError, match="step 9"):
        open_source(folder, step=9)


def test_a_local_encoder_comes_along(tmp_path):
    """The run is trained with a T5 folder; its export works after that folder is deleted."""
    encoder = tmp_path / "t5"
    shutil.copytree(GOLDENS / "t5_relu", encoder)
    source = open_source(tiny_run())
    config = config_of(source)
    data = config.encoder.model_copy(update={"encoder_model_name": str(encoder)})
    export(source, config.model_copy(update={"encoder": data}), tmp_path / "out")
    assert (tmp_path / "out" / "encoder" / "config.json").is_file()
    taken = open_source(tmp_path / "out")
    before = load_encoder(data, 26)
    shutil.rmtree(encoder)
    after = load_encoder(taken.config.encoder, 26)
    assert same(before.params, after.params)
    with pytest.raises(InputError, match=r"width 8, .* 32"):
        load_model(tmp_path / "out")


def test_an_existing_folder_is_not_replaced_unasked(run, tmp_path):
    folder = exported(run, tmp_path / "out")
    with pytest.raises(InputError, match="--overwrite"):
        exported(run, folder)
    (folder / "stale.txt").write_text("old")
    exported(run, folder, overwrite=True)
    assert not (folder / "stale.txt").exists() and open_source(folder).step == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="mine"):
        exported(run, tmp_path / "mine", overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_failed_export_leaves_nothing_and_keeps_the_old(run, tmp_path, monkeypatch):
    folder = exported(run, tmp_path / "out")
    before = (folder / "README.md").read_bytes()

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "model_card", broken)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match="No space left"):
            exported(run, target, overwrite=True)
    assert (folder / "README.md").read_bytes() == before and not (tmp_path / "new").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


SECRETS = ["hf_" + "Ab1" * 11, "sk-" + "x" * 24, "0123456789abcdef0123456789abcdef01234567"]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_not_written(run, tmp_path, secret):
    source = open_source(run)
    config = config_of(source)
    data = config.data.model_copy(update={"task": secret})
    with pytest.raises(InputError, match="task") as error:
        export(source, config.model_copy(update={"data": data}), tmp_path / "out")
    assert secret not in str(error.value) and not (tmp_path / "out").exists()


def test_secrets_of_the_environment_are_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "plain-looking-name")
    source = open_source(run)
    config = config_of(source)
    data = config.data.model_copy(update={"eval_data_path": "org/plain-looking-name"})
    with pytest.raises(InputError, match="eval_data_path"):
        export(source, config.model_copy(update={"data": data}), tmp_path / "out")


def test_accounts_are_not_exported(run, tmp_path):
    assert SECRET.search("data_path = https://me:pw@host/x") and not SECRET.search("https://host/x")
    text = (run / "config.toml").read_text()
    text = re.sub(r"# wandb_entity is not set.*", f'wandb_entity = "hf_{"a1" * 17}"', text)
    (run / "config.toml").write_text(text)
    folder = exported(run, tmp_path / "out")
    assert not SECRET.search((folder / "config.toml").read_text())


def test_only_listed_files_are_uploaded(tmp_path):
    for name in (
        "model.safetensors",
        ".env",
        "config.toml",
        "notes.md",
        "checkpoints/3/model.safetensors",
        "a/README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    allowed = {path.as_posix() for path in files_to_upload(tmp_path)}
    assert allowed == {"model.safetensors", "config.toml", "checkpoints/3/model.safetensors"}
    assert not any(pattern.startswith("*") for pattern in ALLOWED)


def test_a_reference_checkpoint_is_exported_with_given_settings(tmp_path):
    rows = [{"text": f"some words {i % 9} of a text {i % 5}"} for i in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenize(Job(tmp_path / "data", inputs=(str(tmp_path / "a.jsonl"),), text_key="text", train_tokenizer=24))
    source = open_source(GOLDENS / "checkpoint_orbax")
    sets = ["hidden_size=48", "depth=4", "num_heads=4", "bottleneck_dim=16", "encoder_model_name=embedding",
            "embedding_dim=32", f"tokenizer_name={tmp_path / 'data' / 'tokenizer'}"]  # fmt: skip
    export(source, config_of(source, task="owt", sets=sets), tmp_path / "out")
    assert same(open_source(tmp_path / "out").params, source.params)
    with pytest.raises(InputError, match=r"96 tokens, .* 24"):
        load_model(tmp_path / "out")
