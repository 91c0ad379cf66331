"""Recipes to edit, where settings came from, what is installed, and completion in the shell."""

import json
import os
import subprocess
import sys

import pytest

from elfcli.cli import options
from elfcli.config.resolve import resolve, task_names
from elfcli.diagnosis import installation


@pytest.mark.parametrize(("task", "model"), [*((name, None) for name in task_names()), ("owt", "ELF-M")])
def test_a_copied_recipe_is_the_recipe_and_says_what_each_setting_means(elf, tmp_path, task, model):
    file = tmp_path / "my.toml"
    code, out, err = elf("config", "copy", task, file, *(["--model", model] if model else []))
    assert (code, err) == (0, "") and f"elf train --config {file}" in out
    wanted = resolve(task=task, model=model, environ={}).config
    found = resolve(files=[file], environ={}).config
    left_out = {"evaluation": {"sampling_configs_path"}}
    assert found.model_dump(exclude=left_out) == wanted.model_dump(exclude=left_out)
    lines = file.read_text().splitlines()
    assert lines[lines.index(f"max_length = {wanted.data.max_length}") - 1].startswith("# Sequence length S in tokens")


def test_a_recipe_is_not_written_over_a_file(elf, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("seed = 1\n")
    for arguments, why in [
        (("toy-de-en", file), "exists; choose another FILE"),
        (("toy-de-en", tmp_path / "my.yaml"), ".toml"),
        (("toy-de", tmp_path / "other.toml"), "did you mean 'toy-de-en'"),
    ]:
        code, _, err = elf("config", "copy", *arguments)
        assert code == 2 and why in err and err.count("\n") == 1
    assert file.read_text() == "seed = 1\n"


def test_presets_are_named_and_files_are_shown_with_their_path(elf, tmp_path):
    (tmp_path / "own.toml").write_text("lr = 0.5\n")
    code, out, _ = elf("config", "show", "--task", "owt", "--model", "ELF-M", "-c", tmp_path / "own.toml")
    assert code == 0 and "max_length = 1024  # task preset owt:8\n" in out and "# model preset ELF-M:" in out
    assert "# task preset owt/ELF-M:" in out and "[[sampling]]  # task preset sampling/uncond:" in out
    assert f"lr = 0.5  # config file {tmp_path / 'own.toml'}:1" in out


def test_doctor_without_a_model_checks_the_installation(elf, tmp_path, monkeypatch):
    file = tmp_path / "checks.json"
    monkeypatch.setattr("elfcli.hub_access.hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    code, out, err = elf("doctor", "--json", file)
    assert (code, err) == (0, "") and "hf_secret" not in out + file.read_text()
    rows = {row["check"]: row for row in json.loads(file.read_text())["checks"]}
    assert rows["jax"]["verdict"] == "ok" and rows["devices"]["value"].endswith("cpu (cpu)")
    assert rows["Hub"]["verdict"] == "warn" and rows["Hub token"]["value"] == "found"
    assert out.splitlines()[-1].startswith("first: ")
    monkeypatch.setattr(installation, "version", lambda name: "0.8.1" if name == "jax" else "99")
    old = {row.check: row for row in installation.packages()}
    assert old["jax"].verdict == "fail" and old["jax"].advice.startswith("pip install 'jax")
    assert installation.first_to_fix([*installation.hub(), old["jax"]]).startswith("jax: pip install")


def test_the_shell_completes_tasks_models_and_runs(tmp_path, monkeypatch):
    for name in ("runs/first", "runs/second", "mine", "deep/er/own"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert options.complete_task("toy-d") == ["toy-de-en"] and options.complete_model("ELF-B") == ["ELF-B"]
    assert options.complete_run("") == ["mine", "runs/first", "runs/second"]
    assert options.complete_run("runs/f") == ["runs/first"] and options.complete_run("de") == ["deep/"]
    assert options.complete_run("deep/er/o") == ["deep/er/own"] and options.complete_run("no/where/") == []
    assert options.complete_run(f"{tmp_path}/m") == [f"{tmp_path}/mine"] and "ELF-B-owt" in options.complete_checkpoint(
        "ELF-B-o"
    )
    asked = {"_ELF_COMPLETE": "complete_bash", "COMP_WORDS": "elf train --task toy-s", "COMP_CWORD": "3"}
    found = subprocess.run(
        [sys.executable, "-m", "elfcli"], env=os.environ | asked, capture_output=True, text=True, timeout=120
    )
    assert found.stdout.split() == ["toy-summary"] and found.stderr == ""
