"""`elf sweep`: its settings, resuming after an interruption, and the same samples as `elf sample`."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_from_disk
from gpt2_files import write_judge
from tiny_run import tiny_run

from elfcli.config.resolve import resolve
from elfcli.config.schema import SamplingPreset
from elfcli.errors import ElfError, InputError
from elfcli.evaluation import evaluate
from elfcli.sampling import generate
from elfcli.sampling.settings import SamplingSetting, check_used, combinations, without_repeats
from elfcli.scoring.judge import Judge
from elfcli.scoring.perplexity import perplexity
from elfcli.scoring.samples_file import UNKNOWN, read_meta

GRID = ["--steps", "2,5", "--cfg", "1,2", "-n", 6]
INTERFACE = {"metric", "value", "interval", "num_samples", "signature", "made_by", "details"}
NAMES = [f"ode{steps}-cfg{cfg}-w1-logit_normal" for steps in (2, 5) for cfg in (1, 2)]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny_run(), tmp_path / "run"))


@pytest.fixture
def sweep(elf, copy):
    """Runs `elf sweep` of the copied run on its training data."""
    return lambda *options: elf("sweep", copy, "--data", tiny_run().parent / "data", *options)


@pytest.fixture
def sampled(monkeypatch):
    """Names of the settings that are sampled, in order."""
    names, real = [], generate.outputs

    def counted(model, sources, setting, *options):
        names.append(setting.name)
        return real(model, sources, setting, *options)

    monkeypatch.setattr(generate, "outputs", counted)
    return names


def content(folder: Path) -> dict:
    """The files of a sweep without what the clock decides."""
    found = {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}
    rows = [json.loads(line) for line in found.pop("results.jsonl").splitlines()]
    return found | {row["name"]: row | {"seconds": 0} for row in rows}


def test_every_combination_is_sampled_scored_and_ranked(sweep, sampled):
    code, out, err = sweep(*GRID, "--json", "best.json", "--metrics", "rouge,bleu")
    assert code == 0 and sampled == NAMES
    assert "4 settings of 6 examples of the evaluation data" in err and "0 already done" in err
    results = json.loads(Path("best.json").read_text())
    values = [result["scores"][0]["value"] for result in results]
    assert values == sorted(values, reverse=True) and {result["name"] for result in results} == set(NAMES)
    head, *lines = out.splitlines()
    assert [line[2:].split()[0] for line in lines[:4]] == NAMES  # 3, 5, 6 and 11 network calls
    assert "ROUGE-L" in head and "BLEU" in head and "distinct-1/2/4" in out
    *_, verdict, command = lines
    named = next(result for result in results if result["name"] in verdict) if "cheapest" in verdict else results[0]
    assert "by rouge, higher is better" in verdict and (lines[0][0] == "*" or "*" not in "".join(lines[:4]))
    assert f"--steps {named['setting']['num_sampling_steps']} --cfg {named['setting']['cfg']}" in command
    assert all(score.keys() >= INTERFACE for result in results for score in result["scores"])
    assert results[0]["scores"][0]["made_by"]["network_calls"] in (3, 5, 6, 11)


def test_a_sweep_samples_what_elf_sample_samples(elf, sweep, copy):
    assert sweep(*GRID, "-o", "swept")[0] == 0
    command = ["sample", "--checkpoint", copy, "--steps", 2, "--num-samples", 6, "-o", "one.jsonl"]
    assert elf(*command, "--data", tiny_run().parent / "data")[0] == 0
    name = NAMES[0]
    assert Path(f"swept/{name}.jsonl").read_text() == Path("one.jsonl").read_text()
    assert read_meta(Path(f"swept/{name}.jsonl")) == read_meta(Path("one.jsonl")) != UNKNOWN
    scored = elf("eval-bleu", "one.jsonl", "--json", "bleu.json")
    assert scored[0] == 0
    row = next(
        row for row in map(json.loads, Path("swept/results.jsonl").read_text().splitlines()) if row["name"] == name
    )
    alone = json.loads(Path("bleu.json").read_text())
    assert alone["made_by"] == row["scores"][0]["made_by"] and alone["made_by"]["solver"] == "ode"
    alone["details"]["memorised"] = row["scores"][0]["details"]["memorised"]  # only the sweep has the training data
    assert row["scores"] == [alone]


def test_an_interrupted_sweep_resumes_with_the_same_results(sweep, sampled, monkeypatch):
    assert sweep(*GRID, "-o", "whole")[0] == 0
    sampled.clear()
    real = evaluate.write_samples

    def full(path, rows, overwrite):
        if path.name.startswith("ode5-cfg1"):
            raise ElfError("the disk is full")
        real(path, rows, overwrite)

    monkeypatch.setattr(evaluate, "write_samples", full)
    assert sweep(*GRID, "-o", "stopped")[0] == 1
    assert len(content(Path("stopped"))) == 6  # two settings: samples, provenance, and a line of each
    monkeypatch.setattr(evaluate, "write_samples", real)
    sampled.clear()
    code, out, err = sweep(*GRID, "-o", "stopped")
    assert code == 0 and "2 already done" in err and sampled == NAMES[2:]
    assert content(Path("stopped")) == content(Path("whole"))
    sampled.clear()
    again = sweep(*GRID, "-o", "stopped")
    assert again[0] == 0 and sampled == [] and again[1] == out  # nothing is pending: it prints the results
    assert sweep("--steps", "2,3,5", "--cfg", "1,2", "-n", 6, "-o", "stopped")[0] == 0
    assert [name[:4] for name in sampled] == ["ode3", "ode3"]


def two_processes(*options: list) -> list[subprocess.CompletedProcess]:
    """Runs `elf sweep` as two processes, each with its options."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    joined = ["--coordinator", address, "--num-processes", 2, "--join-timeout", 60, "--process-id"]
    words = [[sys.executable, "-m", "elfcli", "sweep", *own, *joined, i] for i, own in enumerate(options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(list(map(str, command)), **pipes) for command in words]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, outputs, strict=True)
    ]


@pytest.mark.slow
def test_two_processes_resume_with_the_same_results(sweep, copy):
    """One setting is done already, by a single process; the results of all are those of a single process."""
    assert sweep(*GRID, "-o", "whole")[0] == 0
    assert sweep("--steps", 2, "--cfg", 1, "-n", 6, "-o", "shared")[0] == 0
    command = [copy, "--data", tiny_run().parent / "data", *GRID, "-o", "shared", "--json", "best.json"]
    first, second = two_processes(command, command)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "4 settings of 6" in first.stderr and "1 already done" in first.stderr
    assert (second.stdout, second.stderr) == ("", "") and "by bleu, higher is better" in first.stdout
    assert content(Path("shared")) == content(Path("whole")) and len(json.loads(Path("best.json").read_text())) == 4


@pytest.mark.slow
def test_two_processes_with_different_options_are_refused(copy):
    command = [copy, "--data", tiny_run().parent / "data", "-n", 6, "-o", "shared"]
    first, second = two_processes([*command, "--steps", "2,5"], [*command, "--steps", "2,6"])
    assert (first.returncode, second.returncode) == (2, 2), first.stderr + second.stderr
    errors = [line for line in (first.stderr + second.stderr).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "process 1" in errors[0]
    assert not Path("shared/results.jsonl").exists()


def test_results_of_something_else_are_refused_or_replaced(sweep, copy, sampled):
    assert sweep(*GRID, "-o", "swept")[0] == 0
    before = content(Path("swept"))
    others = [
        (["--seed", 1], "seed 0, not 1"),
        (["-n", 5], "num_samples 6, not 5"),
        (["--metrics", "rouge"], "metrics ['bleu'], not ['rouge']"),
        (["--data", "other"], "other data"),
        (["-s", "t_eps=0.1"], "other settings"),
    ]
    data = tiny_run().parent / "data"
    rows = load_from_disk(str(data))
    rows.select(range(len(rows) - 1, 0, -1)).save_to_disk("other")
    shutil.copytree(data / "tokenizer", "other/tokenizer")
    sampled.clear()
    for options, said in others:
        code, _, err = sweep(*GRID, "-o", "swept", *options)
        assert code == 2 and said in err.splitlines()[-1] and "--overwrite" in err, err
    assert sampled == [] and content(Path("swept")) == before
    assert sweep(*GRID, "-o", "swept", "--seed", 1, "--overwrite")[0] == 0
    assert sampled == NAMES and content(Path("swept")) != before
    shutil.rmtree(copy / "checkpoints" / "3")
    code, _, err = sweep(*GRID, "-o", "swept", "--seed", 1)
    assert code == 2 and "step 3, not 2" in err


def test_one_compilation_per_shape(sweep):
    """Ten settings: with and without a second pass for the condition, for any steps, sampler, gamma and scale."""
    generate.sample_batch.clear_cache()
    grid = ["--steps", "2,3,5", "--sampler", "ode,sde", "--gamma", "1,1.5", "--cfg", "1,2,3", "-n", 6]
    code, out, _ = sweep(*grid)
    assert code == 0 and "27 results" in out
    assert generate.sample_batch._cache_size() == 2


def test_presets_and_files_of_settings(sweep, sampled):
    Path("list.yaml").write_text("- {sampling_method: sde, num_sampling_steps: [2, 5], sde_gamma: 1.5}\n")
    for options in (["-s", "sampling_configs_path=list.yaml"], ["--configs", "list.yaml", "--overwrite"]):
        assert sweep("-n", 6, *options)[0] == 0
        assert sampled == ["sde2-gamma1.5-cfg1-w1-logit_normal", "sde5-gamma1.5-cfg1-w1-logit_normal"]
        sampled.clear()


def test_combinations():
    presets = (SamplingPreset(num_sampling_steps=(32,), cfgs=(2.0,)),)
    assert combinations(presets, {}) == [SamplingSetting(num_sampling_steps=32, cfg=2.0)]
    assert combinations(presets, {"num_sampling_steps": [4, 8]}) == [
        SamplingSetting(num_sampling_steps=4, cfg=2.0),
        SamplingSetting(num_sampling_steps=8, cfg=2.0),
    ]
    both = combinations(presets, {"sampling_method": ["ode", "sde"], "sde_gamma": [1.0, 2.0]})
    assert [(setting.sampling_method, setting.sde_gamma) for setting in both] == [
        ("ode", 0.0),
        ("sde", 1.0),
        ("sde", 2.0),
    ]
    assert combinations(presets, {"sampling_method": ["sde"]})[0].sde_gamma == 1.5  # the published preset's
    assert without_repeats([SamplingSetting(sde_gamma=1.0), SamplingSetting()]) == [SamplingSetting()]


def test_options_that_no_setting_uses_are_refused():
    """Guidance towards a source would make a sweep of free texts a table of equal rows."""
    free, paired = (resolve(task=task, environ={}).config for task in ("toy-text", "toy-de-en"))
    check_used(paired, {"cfg"}, [SamplingSetting(cfg=2.0)])
    check_used(free, {"cfg"}, [SamplingSetting(cfg=1.0)])
    with pytest.raises(InputError, match="--w"):
        check_used(free, {"cfg"}, [SamplingSetting(cfg=1.0), SamplingSetting(cfg=2.0)])
    check_used(free, {"sde_gamma", "time_shift"}, [SamplingSetting("sde"), SamplingSetting(time_schedule="shifted")])


def test_seeds_and_the_checkpoint_by_its_option(elf, copy):
    """Each seed has the folder that it has alone, so that finished settings are not sampled again."""
    line = ["sweep", "--checkpoint", copy, "--data", tiny_run().parent / "data", "--steps", 2, "-n", 6]
    assert elf(*line, "--seed", 1)[0] == 0
    code, out, err = elf(*line, "--seeds", "0,1", "--json", "mean.json")
    assert code == 0 and "1 already done" in err and " +- " in out
    (found,) = json.loads(Path("mean.json").read_text())
    files = [copy / f"sweep/step3-seed{seed}/results.jsonl" for seed in (0, 1)]
    alone = [json.loads(file.read_text())["scores"][0]["value"] for file in files]
    (score,) = found["scores"]
    assert score["details"]["values"] == alone and score["value"] == pytest.approx(sum(alone) / 2)
    assert "resampled" not in found and score["made_by"]["seed"] == [0, 1]


def test_free_texts_are_compared_with_held_out_ones_by_the_same_judge(elf, copy, tmp_path):
    judge = write_judge(tmp_path / "judge")
    line = ["sweep", copy, "-s", "max_input_length=0", "--metrics", "ppl", "-s", f"eval_ppl_model={judge}", "-n", 4]
    code, out, _ = elf(*line, "--steps", "2,3", "--data", tiny_run().parent / "data")
    assert code == 0 and out.count("real text") >= 2 and "perplexity at the entropy" in out
    written = [json.loads(text) for text in next((copy / "sweep").glob("*/results.jsonl")).read_text().splitlines()]
    alone = perplexity([f"one word {i % 7} and {i % 5}" for i in range(4)], Judge(model=str(judge)))
    for result in written:
        (score,) = result["scores"]
        assert score["details"]["real"]["ppl"] == pytest.approx(alone.ppl, rel=1e-5)
        assert "split:free" in score["signature"] and score["entropy"] > 0
        assert len(result["resampled"]["ppl"]) == 1000
