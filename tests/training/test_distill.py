"""`elf distill`: rounds and stages follow each other, stop and resume to the bit; students know what they are for."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest
from tiny_run import tiny_run

from elfcli.config.resolve import load_config
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.errors import InputError, Stopped
from elfcli.runs import checkpoint
from elfcli.runs import folder as run
from elfcli.runs.rounds import read_rounds, remaining_rounds
from elfcli.sampling.model import load_model
from elfcli.sampling.settings import SamplingSetting, check_sampling_setting, settings_of
from elfcli.training.distill import start_rounds, train_rounds
from elfcli.training.start import resume_run
from elfcli.weights.open import open_source
from elfcli.weights.settings import resolved_of

SETS = ["rounds=[16,8]", "round_steps=3", "teacher_cfg=2", "log_every_steps=1"]
STAGES = ["distill_objective=mmd", "stage_steps=[3,2]", "max_input_length=0", "log_every_steps=1"]


def start(folder, *sets):
    source = open_source(tiny_run())
    return start_rounds(source, resolved_of(source, sets=[*SETS, *sets]), folder)


def stop_after_the_first_step(monkeypatch):
    append = run.append_metrics

    def append_and_ask(folder, row):
        append(folder, row)
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "append_metrics", append_and_ask)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return start(tmp_path_factory.mktemp("students") / "straight")


def weights(folder, part_is_ema=True):
    return jax.tree.leaves(checkpoint.load_weights(folder, ema=part_is_ema)[0])


def same(ours, theirs) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_rounds_are_runs_of_one_teacher(straight):
    first, second = (load_config(straight / f"round-{n}" / "config.toml") for n in (16, 8))
    assert read_rounds(straight).rounds == (16, 8) and remaining_rounds(straight) == []
    assert first.training.init_from is None and second.training.init_from == str(straight / "round-16")
    for config, steps in ((first, 16), (second, 8)):
        made = config.distillation
        assert (made.student_steps, made.teacher, made.teacher_step) == (steps, str(tiny_run()), 3)
        assert made.sub_steps == 16 // steps and config.optimization.ema_decay == 0.5
        assert settings_of(config.sampling)[0].num_sampling_steps == steps
        assert settings_of(config.sampling)[0].cfg == 1
    assert [row["step"] for row in run.read_metrics(straight / "round-8")] == [1, 2, 3]


def test_a_stopped_round_goes_on_and_the_next_follows(straight, tmp_path, monkeypatch):
    stop_after_the_first_step(monkeypatch)
    with pytest.raises(Stopped, match=rf"SIGTERM: saved at step [12]; continue with `elf resume {tmp_path}/students`"):
        start(tmp_path / "students")
    monkeypatch.undo()
    assert remaining_rounds(tmp_path / "students") == [(16, True), (8, False)]
    with pytest.raises(InputError, match="already holds a distillation"):
        from elfcli.runs.rounds import check_new_rounds

        check_new_rounds(tmp_path / "students")
    train_rounds(tmp_path / "students", remaining_rounds(tmp_path / "students"))
    for part in (True, False):
        for name in ("round-16", "round-8"):
            assert same(weights(tmp_path / "students" / name, part), weights(straight / name, part)), name


def test_students_are_found_by_folder_and_name(straight, tmp_path):
    last, earlier = open_source(straight), open_source(f"{straight}@round-16")
    assert "8-step student" in last.description and last.folder == straight / "round-8"
    assert earlier.folder == straight / "round-16" and not same(*map(jax.tree.leaves, (last.params, earlier.params)))
    with pytest.raises(InputError, match=r"round-17: .*'round-16'"):
        open_source(f"{straight}@round-17")
    shutil.copytree(straight / "round-16", tmp_path / "students@round-8")
    assert "16-step student" in open_source(tmp_path / "students@round-8").description, "a folder of this name wins"


def test_a_student_takes_its_own_steps_and_no_more_guidance(elf, straight, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"input": "ein wort 1 und 2"}\n')
    sample = ("sample", "--checkpoint", straight, "--input", tmp_path / "in.jsonl")
    code, _, err = elf(*sample, "-o", tmp_path / "out.jsonl")
    assert code == 0 and "ode8-cfg1-" in err, err
    for options, said in ((("--cfg", "2"), "--cfg 2"), (("--w", "9"), "at most 5")):
        code, _, err = elf(*sample, *options, "-o", tmp_path / "more.jsonl")
        assert code == 2 and said in err, err
    assert load_model(f"{straight}@round-16").config.distillation.student_steps == 16


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The folder of a distillation by MMD and IRD, and its data: texts for the teacher of pairs."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "texts.txt").write_text("".join(f"one word {i % 7} and {i % 5}\n" for i in range(32)))
    tokenizer = str(tiny_run().parent / "data" / "tokenizer")
    tokenize(Job(folder / "data", inputs=(str(folder / "texts.txt"),), tokenizer=tokenizer))
    return start(folder / "students", *STAGES, f"data_path={folder / 'data'}"), folder / "data"


def test_stages_are_runs_and_the_second_learns_from_the_first(stages):
    folder, _ = stages
    first, second = (load_config(folder / name / "config.toml") for name in ("mmd", "ird"))
    assert (read_rounds(folder).rounds, read_rounds(folder).steps) == (("mmd", "ird"), (3, 2))
    assert (first.distillation.teacher, first.distillation.teacher_step) == (str(tiny_run()), 3)
    assert (second.distillation.teacher, second.distillation.teacher_step) == (str(folder / "mmd"), 3)
    assert (first.training.steps, second.training.steps, second.training.init_from) == (3, 2, None)
    assert first.distillation.sigma > 0 and first.optimization.lr == 0.01 / 40
    assert first.global_batch == first.objective.group_size == 7, "one of seven decodes, six make three kernels of two"
    assert settings_of(second.sampling)[0].name == "refine8-cfg1-w3-start"
    assert "IRD student" in open_source(folder).description
    assert "MMD student" in open_source(f"{folder}@mmd").description


@pytest.mark.parametrize("at", ["within mmd", "before ird"])
def test_stopped_stages_go_on_to_the_same_weights(stages, tmp_path, monkeypatch, at):
    whole, data = stages
    folder = tmp_path / "students"
    if at == "within mmd":
        stop_after_the_first_step(monkeypatch)
        with pytest.raises(Stopped, match=rf"continue with `elf resume {folder}`"):
            start(folder, *STAGES, f"data_path={data}")
        monkeypatch.undo()
        assert remaining_rounds(folder) == [("mmd", True), ("ird", False)]
    else:
        shutil.copytree(whole, folder)
        shutil.rmtree(folder / "ird")
        assert remaining_rounds(folder) == [("ird", False)]
        assert "MMD student" in open_source(folder).description
    train_rounds(folder, remaining_rounds(folder))
    for name in ("mmd", "ird"):
        assert same(weights(folder / name), weights(whole / name)), name
    if at == "within mmd":
        with pytest.raises(InputError, match="sigma: fixed for a run"):
            resume_run(folder / "mmd", ["sigma=3"])


def test_students_of_mmd_have_no_guidance_by_a_source(stages):
    config = load_config(stages[0] / "ird" / "config.toml")
    with pytest.raises(InputError, match="--cfg 2: more guidance"):
        check_sampling_setting(config, SamplingSetting("refine", 4, cfg=2.0))
