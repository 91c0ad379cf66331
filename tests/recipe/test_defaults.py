"""What the short command lines take where they were told nothing, and the mirror of a run."""

import json
import os
import re
import shutil

import datasets
import pytest
from hub_server import published
from tiny_run import SETTINGS, tiny_run

from elfcli.config.resolve import resolve
from elfcli.config.schema import Config, SamplingPreset
from elfcli.errors import InputError
from elfcli.recipe.defaults import with_data
from elfcli.sampling.settings import SamplingSetting, chosen_setting, for_templates, one_setting
from elfcli.training.inputs import tokenizer_of
from elfcli.training.start import start_run
from elfcli.weights.newest import chosen_checkpoint


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("elfcli.hub_access.hub_reachable", lambda: False)
    monkeypatch.setattr("elfcli.weights.open.hub_reachable", lambda: False)
    return tmp_path


def fake_run(folder, task, model, saved, step=10):
    (folder / "checkpoints" / str(step)).mkdir(parents=True)
    (folder / "config.toml").write_text(f'[data]\ntask = "{task}"\n[network]\nmodel = "{model}"\n')
    os.utime(folder / "checkpoints" / str(step), (saved, saved))


def test_the_newest_run_that_fits_is_taken_else_the_published_one(here, capsys):
    assert chosen_checkpoint("given", "owt", None) == "given"
    assert chosen_checkpoint(None, None, None) == "ELF-B-owt"
    assert chosen_checkpoint(None, "de-en", None) == "ELF-B-de-en"
    assert chosen_checkpoint(None, None, "ELF-M") == "ELF-M-owt"
    fake_run(here / "runs" / "old", "owt", "ELF-B", 1000)
    fake_run(here / "runs" / "new", "owt", "ELF-M", 2000)
    fake_run(here / "elsewhere", "xsum", "ELF-B", 3000)
    (here / "runs" / "empty" / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir(parents=True)
    (here / "runs" / "empty" / "config.toml").write_text('[data]\ntask = "owt"\n[network]\n')
    capsys.readouterr()
    assert chosen_checkpoint(None, None, None) == "elsewhere"
    assert chosen_checkpoint(None, "owt", None) == "runs/new"
    assert chosen_checkpoint(None, "owt", "ELF-B") == "runs/old"
    assert chosen_checkpoint(None, "de-en", None) == "ELF-B-de-en"
    assert len(capsys.readouterr().err.splitlines()) == 4
    with pytest.raises(InputError, match="ELF-XS-toy-de-en is not published"):
        chosen_checkpoint(None, "toy-de-en", "ELF-XS")


@pytest.mark.parametrize(
    ("flags", "steps", "gamma"),
    [
        ({}, 32, 1.5),
        ({"num_sampling_steps": 64}, 64, 1.0),
        ({"sampling_method": "sde", "num_sampling_steps": 64}, 64, 1.0),
        ({"sampling_method": "sde", "num_sampling_steps": 40}, 40, 1.5),
        ({"sampling_method": "sde", "num_sampling_steps": 64, "sde_gamma": 0.2}, 64, 0.2),
    ],
)
def test_gamma_comes_from_the_preset_of_the_steps(flags, steps, gamma):
    presets = resolve(task="owt", environ={}).config.sampling
    setting = chosen_setting(presets, flags)
    assert (setting.sampling_method, setting.num_sampling_steps, setting.sde_gamma, setting.self_cond_scale) == (
        "sde",
        steps,
        gamma,
        3.0,
    )
    # A model whose preset is an ODE keeps its guidance.
    ode = (SamplingPreset(cfgs=(2.0,)),)
    if flags.get("sampling_method"):
        assert chosen_setting(ode, flags) == SamplingSetting("sde", steps, cfg=2.0, sde_gamma=gamma)


def test_filled_gaps_have_settings_of_their_own():
    sde = SamplingPreset(sampling_method="sde", sde_gamma=1.5)
    both = sde.model_copy(update={"fill_steps": 8, "fill_gamma": 3.0, "fill_candidates": 32})
    given = {"num_sampling_steps": 4, "sde_gamma": 1.0, "candidates": 1}

    def chosen(preset: SamplingPreset, given: dict, fills: bool) -> tuple:
        setting = one_setting(Config(sampling=(preset,)), given, fills)
        return setting.num_sampling_steps, setting.sde_gamma, setting.candidates

    assert chosen(both, {}, fills=False) == (64, 1.5, 1) and chosen(both, {}, fills=True) == (8, 3.0, 32)
    assert chosen(both, given, fills=False) == chosen(both, given, fills=True) == (4, 1.0, 1)
    older = sde.model_copy(update={"candidates": 2})
    assert chosen(older, {}, fills=True) == (64, 1.5, 2) and chosen(sde, {}, fills=True) == (64, 1.5, 8)
    (alone,) = for_templates([both], choose=False)
    assert (alone.num_sampling_steps, alone.candidates) == ((8,), 1), "to show a few texts, training counts no n-grams"


def test_short_lines_without_a_network_say_what_they_chose_and_end(here, elf):
    for line, chosen, wanted in (
        ("sample --steps 64 --sampler sde", "published ELF-B-owt", "ELF-B-owt"),
        ("eval --task de-en", "published ELF-B-de-en", "ELF-B-de-en"),
        ("train --model ELF-M", "owt recipe", "openwebtext-t5"),
        ("train --task xsum", "using the published data", "xsum_train_t5"),
    ):
        code, out, err = elf(*line.split())
        *notes, error = err.splitlines()
        assert (code, out) == (2, "") and chosen in "\n".join(notes), err
        assert error.startswith("error: ") and wanted in error and "cannot be reached" in error
    assert not (here / "runs").exists()


def test_tokenized_data_of_the_task_is_preferred_to_the_published(here):
    found = with_data(resolve(task="xsum", environ={})).config.data
    assert (found.data_path, found.eval_data_path) == (
        "embedded-language-flows/xsum_train_t5",
        "embedded-language-flows/xsum_validation_t5",
    )
    (here / "data" / "xsum-t5" / "validation").mkdir(parents=True)
    (here / "data" / "xsum-t5" / "elf_data.json").write_text("{}")
    found = with_data(resolve(task="xsum", environ={})).config.data
    assert (found.data_path, found.eval_data_path) == (str(here / "data" / "xsum-t5"), None)
    given = with_data(resolve(task="xsum", flags={"data_path": "mine/other"}, environ={})).config.data
    assert given.data_path == "mine/other"


def test_a_model_may_have_its_own_part_of_a_task_preset():
    epochs = {m: resolve(task="owt", model=m, environ={}).config.training.epochs for m in ("ELF-B", "ELF-M", "ELF-L")}
    assert epochs == {"ELF-B": 5, "ELF-M": 4, "ELF-L": 3}
    assert resolve(task="owt", model="ELF-M", sets=["epochs=9"], environ={}).config.training.epochs == 9
    assert resolve(task="xsum", model="ELF-M", environ={}).config.training.epochs == 100


def test_the_tokenizer_of_data_that_records_none_is_the_encoders(tmp_path):
    from elfcli.data.folder import load_examples

    datasets.Dataset.from_dict({"input_ids": [[1, 2]]}).save_to_disk(tmp_path / "data")
    examples = load_examples(tmp_path / "data", "train")
    for sets, wanted in (([], "google-t5/t5-small"), (["tokenizer_name=mine"], "mine")):
        assert tokenizer_of(resolve(sets=sets, environ={}).config, examples) == wanted
    with pytest.raises(InputError, match="set tokenizer_name"):
        tokenizer_of(resolve(sets=["encoder_model_name=embedding"], environ={}).config, examples)


def test_eval_and_sample_take_the_newest_run_and_eval_tells_the_published_figure(here, elf):
    run = here / "runs" / "mine"
    shutil.copytree(tiny_run(), run)
    text = (run / "config.toml").read_text()
    data = resolve(files=[run / "config.toml"], environ={}).config.data.data_path
    text = re.sub('^task = "toy-de-en"', 'task = "de-en"', text, flags=re.MULTILINE)
    (run / "config.toml").write_text(re.sub('^model = "ELF-XS"', 'model = "ELF-B"', text, flags=re.MULTILINE))
    code, out, err = elf("eval", "--task", "de-en", "--num-samples", "2", "--data", data)
    assert code == 0 and "newest run of de-en" in err and "runs/mine" in err, err
    assert "BLEU" in out and "\node64-cfg2-w1" in out and data in out
    assert out.splitlines()[-2:] == [
        "published for ELF-B: bleu 26.4  (test; ODE 64 steps, CFG 2, w 1)",
        "published for ELF-B: bleu about 26.7  (validation; ODE 64 steps, CFG 2, w 1)",
    ]
    code, _, err = elf("sample", "--sampler", "sde", "--steps", "2", "--input", write_input(here))
    assert code == 0 and "runs/mine" in err and "--gamma" in err and "1.5" in err, err


def write_input(folder):
    (folder / "in.jsonl").write_text(json.dumps({"input": "ein wort 1 und 2"}) + "\n")
    return folder / "in.jsonl"


def mirrored_run(folder):
    data = resolve(files=[tiny_run() / "config.toml"], environ={}).config.data.data_path
    flags = {"data_path": data, "hub_repo": "org/mirror"}
    return start_run(resolve(task="toy-de-en", sets=SETTINGS, flags=flags, environ={}), folder)


def test_a_run_is_mirrored_up_to_its_last_step(hub, tmp_path, capsys):
    mirrored_run(tmp_path / "run")
    files = published(hub, "org/mirror")
    assert b"weights of step 3" in files["README.md"]
    assert "mirrored to org/mirror" in capsys.readouterr().err


def test_a_mirror_that_fails_is_told_and_the_run_ends_well(hub, tmp_path, capsys):
    hub.fail("repos/create", 1000, 500)
    folder = mirrored_run(tmp_path / "run")
    err = capsys.readouterr().err
    assert "not mirrored to org/mirror" in err and "the last checkpoint is not on the Hub" in err
    assert (folder / "checkpoints" / "3").is_dir() and "org/mirror" not in hub.repos
