"""What earlier versions wrote stays readable: a run continues as it would have, an export samples as it did."""

import json
import shutil
from pathlib import Path

import pytest

from elfcli.config.resolve import resolve, resolve_run
from elfcli.runs import folder as run
from elfcli.training.start import resume_run

OLD = Path(__file__).parents[1] / "old" / "0.1.0"
FIGURES = ("loss", "denoise_loss", "decode_loss", "grad_norm")
SAMPLES = {
    "ode": ["--steps", 8, "--cfg", 1.5, "--time-schedule", "uniform"],
    "sde": ["--steps", 8, "--sampler", "sde", "--gamma", 1.5, "--sc-cfg", 2, "--time-schedule", "uniform"],
}


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """The run of version 0.1.0, continued from step 4 to its end."""
    folder = Path(shutil.copytree(OLD / "run", tmp_path_factory.mktemp("old") / "run"))
    resume_run(folder, sets=[f"data_path={OLD / 'data'}"])
    return folder


def assert_continued(folder: Path, version: Path, steps: list[int]) -> None:
    """Each figure of each step is the recorded one, to five digits. Below 0.01 the bound is that of float32 sums of
    numbers near 1, which processors round differently."""
    found = [row for row in run.read_metrics(folder) if row["step"] >= steps[0]]
    recorded = [json.loads(line) for line in (version / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found] == [row["step"] for row in recorded] == steps
    for ours, theirs in zip(found, recorded, strict=True):
        for name in FIGURES:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-7), (ours["step"], name)
        assert ours["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-5), ours["step"]


def test_an_old_run_continues_as_it_did(resumed):
    assert_continued(resumed, OLD, list(range(1, 25)))


def test_an_old_export_is_read(elf, tmp_path):
    """Compared without the texts, which depend on how time grids are drawn."""
    output = tmp_path / "exported.jsonl"
    code, _, err = elf(
        "sample", "--checkpoint", OLD / "export", "--input", OLD / "valid.jsonl", "--steps", 2, "-o", output
    )
    assert code == 0, err
    recorded = [json.loads(line) for line in (OLD / "exported.jsonl").read_text().splitlines()]
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row | {"generated": ""} for row in found] == [row | {"generated": ""} for row in recorded]


def assert_samples(elf, folder: Path, recorded: Path, *options) -> None:
    """Sampling writes what was recorded, byte for byte."""
    output = folder / recorded.name
    code, _, err = elf("sample", "--checkpoint", *options, "-o", output)
    assert code == 0, err
    assert output.read_text() == recorded.read_text()


@pytest.mark.parametrize("name", SAMPLES)
def test_an_old_run_samples_what_it_did(resumed, elf, tmp_path, name):
    assert_samples(elf, tmp_path, OLD / f"{name}.jsonl", resumed, "--data", OLD / "data", *SAMPLES[name])


def test_an_old_export_samples_what_it_did(elf, tmp_path):
    sampling = ["--steps", 8, "--cfg", 1.5, "--time-schedule", "uniform", "--input", OLD / "valid.jsonl"]
    assert_samples(elf, tmp_path, OLD / "exported.jsonl", OLD / "export", *sampling)


def test_an_old_run_with_dropout_names_what_changed(elf, tmp_path):
    """Dropout acts in other places since 0.2.0, so the user must choose it to continue."""
    folder = Path(shutil.copytree(OLD / "run", tmp_path / "run"))
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("proj_dropout = 0.0", "proj_dropout = 0.1"))
    resume = ["resume", folder, "--set", f"data_path={OLD / 'data'}", "--set", "steps=5"]
    code, _, err = elf(*resume)
    assert code == 2 and "proj_dropout" in err and "--set proj_dropout=" in err
    assert elf(*resume, "--set", "proj_dropout=0.1")[0] == 0


def test_an_old_run_keeps_how_its_gradients_were_summed():
    assert resolve_run(OLD / "run" / "config.toml").config.training.gradient_dtype == "bfloat16"
    assert resolve(environ={}).config.training.gradient_dtype == "float32"


RECENT = Path(__file__).parents[1] / "old" / "0.2.0"
"""A run on custom pairs, with token vectors, buckets, Muon, a cosine, dropout and accumulated gradients."""
RECENT_SAMPLES = {
    "ode": ["--steps", 8, "--sampler", "ode", "--cfg", 1.5, "--candidates", 1],
    "sde": ["--steps", 8, "--sampler", "sde", "--gamma", 1.5, "--sc-cfg", 2, "--candidates", 2],
}


@pytest.fixture(scope="module")
def recent(tmp_path_factory) -> Path:
    """The run of version 0.2.0, continued from step 200 to its end at 240."""
    folder = Path(shutil.copytree(RECENT / "run", tmp_path_factory.mktemp("recent") / "run"))
    resume_run(folder, sets=[f"data_path={RECENT / 'data'}"])
    return folder


def test_a_recent_run_continues_as_it_did(recent):
    assert_continued(recent, RECENT, list(range(201, 241)))


@pytest.mark.parametrize("name", RECENT_SAMPLES)
def test_a_recent_run_samples_what_it_did(recent, elf, tmp_path, name):
    options = ["--data", RECENT / "data", *RECENT_SAMPLES[name]]
    assert_samples(elf, tmp_path, RECENT / f"{name}.jsonl", recent, *options)


def test_a_recent_export_samples_what_it_did(elf, tmp_path):
    assert_samples(elf, tmp_path, RECENT / "exported.jsonl", RECENT / "export", "--input", RECENT / "valid.jsonl")
