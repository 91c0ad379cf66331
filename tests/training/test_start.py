"""Runs: exact resume, also after kill -9; what a run folder holds; what is refused."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from elfcli.config.resolve import load_config, resolve
from elfcli.corpus import toy
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data.tokenizers import load_tokenizer
from elfcli.errors import ElfError, InputError, Stopped
from elfcli.runs import checkpoint
from elfcli.runs import folder as run
from elfcli.runs.examples import open_examples
from elfcli.training import loop
from elfcli.training.inputs import batch_rows, open_inputs, tokenizer_of
from elfcli.training.start import resume_run, start_run

TINY = ["depth=2", "hidden_size=32", "num_heads=2", "bottleneck_dim=8", "embedding_dim=8", "batch_size=4", "steps=12",
        "save_every_steps=4", "log_every_steps=2", "warmup_steps=2", "max_length=24", "max_input_length=12",
        "lr_schedule=constant"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(toy.generate.__kwdefaults__, "num_train", 2000)
        tokenize(Job(folder, task="toy-de-en"))
    return folder


def settings(data, *sets):
    return resolve(task="toy-de-en", flags={"data_path": str(data)}, sets=[*TINY, *sets], environ={})


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    return start_run(settings(data), tmp_path_factory.mktemp("runs") / "straight")


def states(folder, step=12):
    """Every array of a checkpoint, by path."""
    import orbax.checkpoint as ocp

    arrays = {}
    for part in ("params", "ema", "rest"):
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(folder / "checkpoints" / str(step) / part)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[part + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


def metrics(folder):
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in run.read_metrics(folder)]


def assert_same_run(ours, theirs):
    a, b = states(ours), states(theirs)
    assert a.keys() == b.keys() and len(a) > 50
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []
    assert metrics(ours) == metrics(theirs)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopping_and_resuming_changes_nothing(data, straight, tmp_path, stop):
    folder = start_run(settings(data), tmp_path / "run", stop_at=stop)
    assert_same_run(resume_run(folder), straight)


def test_resuming_a_run_with_frames_changes_nothing(data, tmp_path):
    bucketed = settings(data, "buckets=[16]")
    whole, stopped = start_run(bucketed, tmp_path / "whole"), start_run(bucketed, tmp_path / "run", stop_at=7)
    assert_same_run(resume_run(stopped), whole)


def test_the_batches_of_a_step_share_a_frame(data):
    """Of 12 steps the first 9 have buckets."""
    bucketed = settings(data, "grad_accum_steps=2", "buckets=[16,20]")
    examples = open_examples(bucketed.config)
    inputs = open_inputs(bucketed.config, examples, load_tokenizer(tokenizer_of(bucketed.config, examples)))
    lengths = [batch_rows(bucketed.config, inputs, number)[0] for number in range(24)]
    assert set(lengths[:18]) <= {16, 20, 24} and len(set(lengths[:18])) > 1 and lengths[18:] == [24] * 6
    assert lengths[::2] == lengths[1::2]


def test_kill_and_resume_is_bit_identical(data, straight, tmp_path):
    """kill -9 from outside, at a step between checkpoints, then resumed by another process."""
    folder = tmp_path / "run"
    sets = [argument for setting in TINY for argument in ("--set", setting)]
    train = ["train", "--task", "toy-de-en", "--data", str(data), "--output", str(folder), *sets]
    process = subprocess.Popen([sys.executable, "-m", "elfcli", *train], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not any(row["step"] >= 6 for row in run.read_metrics(folder)):
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_same_run(resume_run(folder), straight)


def test_killed_before_the_first_checkpoint(data, straight, tmp_path):
    """Nothing was saved, so the run starts from its seed: the same run."""
    folder = start_run(settings(data), tmp_path / "run", stop_at=1)
    subprocess.run(["rm", "-r", str(folder / "checkpoints" / "1")], check=True)
    assert_same_run(resume_run(folder), straight)


def test_run_folder(data, straight):
    config = load_config(straight / "config.toml")
    assert config.network.hidden_size == 32 and config.data.task == "toy-de-en"
    start = json.loads((straight / "environment.json").read_text())[0]
    assert start["packages"]["jax"] == jax.__version__ and "git" in start
    rows = run.read_metrics(straight)
    assert [row["step"] for row in rows] == [1, 2, 4, 5, 6, 8, 10, 12]  # a few early ones, then every log_every_steps
    needed = {"step", "loss", "denoise_loss", "decode_loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert all(needed <= row.keys() and np.isfinite([row[name] for name in needed]).all() for row in rows)
    assert rows[1]["learning_rate"] == pytest.approx(0.5 * rows[-1]["learning_rate"])
    assert sorted(int(p.name) for p in (straight / "checkpoints").iterdir() if p.name.isdigit()) == [4, 8, 12]


def test_a_run_is_reproduced_from_its_config(data, straight, tmp_path):
    again = resolve(files=[straight / "config.toml"], environ={})
    assert_same_run(start_run(again, tmp_path / "again"), straight)


def test_a_finished_run_stays_as_it_is(straight):
    before = states(straight)
    resume_run(straight)
    after = states(straight)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_a_longer_run_goes_on(straight, tmp_path):
    folder = shutil.copytree(straight, tmp_path / "run")
    resume_run(folder, sets=["steps=14"])
    assert metrics(folder)[:-1] == metrics(straight) and metrics(folder)[-1]["step"] == 14
    assert load_config(folder / "config.toml").training.steps == 14


def test_an_epoch_counts_every_batch_of_an_optimiser_step(data, tmp_path):
    folder = start_run(settings(data, "grad_accum_steps=2", "steps=2"), tmp_path / "run")
    assert metrics(folder)[-1]["epoch"] == pytest.approx(2 * 2 * 4 / 2000)


def test_adamw_at_the_rates_of_a_cosine(data, tmp_path):
    sets = ["optimizer=adamw", "steps=8", "log_every_steps=1", "save_every_steps=8", "warmup_steps=0"]
    folder = start_run(settings(data, *sets, "lr_schedule=cosine", "lr=0.01", "min_lr=0.002"), tmp_path / "run")
    expected = [0.002 + 0.008 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert [row["learning_rate"] for row in metrics(folder)] == pytest.approx(expected, rel=1e-5)
    moments = [name for name in states(folder, 8) if "nu" in name and "qkv" in name and "kernel" in name]
    assert len(moments) == 1, "AdamW keeps a second moment of matrices, too, which Muon does not"


def test_latents_are_measured_and_kept(data, tmp_path):
    sets = ["latent_mean=measure", "latent_std=measure", "steps=1", "warmup_steps=0"]
    folder = start_run(settings(data, *sets), tmp_path / "run")
    encoder = load_config(folder / "config.toml").encoder
    assert abs(encoder.latent_mean) < 0.2 and abs(encoder.latent_std - 1) < 0.2
    assert "measured" in (folder / "config.toml").read_text()


def test_a_resumed_run_holds_one_state_and_its_first_step_reuses_its_memory(straight, tmp_path, monkeypatch):
    """What is restored replaces no initial state, and is memory that the step may write its result to."""
    folder, real, pointers, held = shutil.copytree(straight, tmp_path / "run"), loop.make_train_step, [], []
    shutil.rmtree(folder / "checkpoints" / "12")
    restore = checkpoint.restore

    def recorded(*arguments):
        step = real(*arguments)

        def run_step(state, *rest):
            places = [{a.unsafe_buffer_pointer() for a in jax.tree.leaves(state) if a.size > 64}]
            state = step(state, *rest)
            pointers.append([*places, {a.unsafe_buffer_pointer() for a in jax.tree.leaves(state) if a.size > 64}])
            return state

        return run_step

    monkeypatch.setattr(loop, "make_train_step", recorded)
    monkeypatch.setattr(
        checkpoint, "restore", lambda m, like, s: held.extend(jax.tree.leaves(like)) or restore(m, like, s)
    )
    resume_run(folder)
    assert held and not [leaf for leaf in held if isinstance(leaf, jax.Array)]
    assert len(pointers[0][0]) > 50 and pointers[0][0] == pointers[0][1]


def test_weights_are_read_without_the_optimiser(straight):
    ema, step = checkpoint.load_weights(straight)
    raw, _ = checkpoint.load_weights(straight, ema=False)
    assert step == 12
    different = [a.tobytes() != b.tobytes() for a, b in zip(*map(jax.tree.leaves, (ema, raw)), strict=True)]
    assert any(different)
    with pytest.raises(InputError, match="4, 8, 12"):
        checkpoint.load_weights(straight, step=5)


def test_a_stop_request_saves_and_says_how_to_go_on(data, straight, tmp_path, monkeypatch):
    """SIGTERM within a run: the step is finished and saved, and the resumed run is the same run. The kernel may hand
    the signal to another thread, which takes it a few fast steps later."""
    append = run.append_metrics

    def append_and_ask(folder, row):
        append(folder, row)
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "append_metrics", append_and_ask)
    with pytest.raises(Stopped, match=r"SIGTERM: saved at step ([2-9]|1[01]); .*elf resume"):
        start_run(settings(data), tmp_path / "run")
    monkeypatch.undo()
    assert Stopped.exit_code == 75
    assert_same_run(resume_run(tmp_path / "run"), straight)


def test_steps_that_are_not_finite_change_nothing_and_end_the_run(data, tmp_path):
    """A learning rate that overflows: skipped steps are counted, weights stay finite, the run says where it is."""
    sets = ["lr=1e38", "max_skipped_steps=3", "warmup_steps=0", "steps=40", "save_every_steps=2", "optimizer=adamw"]
    with pytest.raises(
        ElfError, match=r"not finite for \d+ steps in a row, up to step .* examples \[\d+.*checkpoint is step 2"
    ):
        start_run(settings(data, *sets), tmp_path / "run")
    assert run.read_metrics(tmp_path / "run")[-1]["skipped"] == 2
    params, _ = checkpoint.load_weights(tmp_path / "run", ema=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
