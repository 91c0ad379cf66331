"""Damaged checkpoints are named and never trained over; a run folder has one process; a failed save costs nothing."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import jax
import pytest
from tiny_run import SETTINGS, tiny_run

from elfcli.errors import ElfError, InputError
from elfcli.runs import checkpoint, seal
from elfcli.runs import folder as run
from elfcli.runs.checkpoint import load_weights
from elfcli.runs.lock import locked
from elfcli.training import loop
from elfcli.training.start import resume_run
from elfcli.weights.open import open_source


@pytest.fixture
def copy(tmp_path):
    """A copy of the tiny run: three steps, a checkpoint of each."""
    return Path(shutil.copytree(tiny_run(), tmp_path / "run"))


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 16
    path.write_bytes(data)


def weights(folder: Path) -> list[bytes]:
    return [leaf.tobytes() for ema in (True, False) for leaf in jax.tree.leaves(load_weights(folder, ema=ema)[0])]


def losses(folder: Path) -> list[tuple]:
    return [(row["step"], row["loss"]) for row in run.read_metrics(folder)]


def tree(folder: Path) -> dict:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(run.LOCK_FILE))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_checkpoint_of_a_finished_run_is_sealed(copy):
    steps = sorted((copy / "checkpoints").iterdir())
    assert [step.name for step in steps] == ["1", "2", "3"]
    assert all(seal.is_sealed(step) and seal.damage(step) is None for step in steps)


def test_a_flipped_bit_a_cut_and_a_missing_file_are_named_whatever_the_file(copy):
    step = copy / "checkpoints" / "3"
    files = seal.files_of(step)
    assert len(files) > 20
    for path in files:
        whole = path.read_bytes()
        if path.name != seal.MANIFEST_FILE:
            for place in (0.0, 0.5, 0.999):
                if whole:
                    flip(path, place)
                    assert str(path) in (seal.damage(step) or "intact")
                    path.write_bytes(whole)
            path.unlink()
            assert seal.damage(step) == f"{path} is missing"
        if whole:
            path.write_bytes(whole[: len(whole) // 2])
            assert str(path) in (seal.damage(step) or "intact")
        path.write_bytes(whole)
    assert seal.damage(step) is None


def test_damage_is_refused_and_fallback_continues_from_the_newest_intact_one(copy, capsys):
    arrays = sorted((copy / "checkpoints" / "3" / "rest").rglob("d/*"), key=lambda path: path.stat().st_size)
    flip(arrays[-1])
    before = tree(copy)
    with pytest.raises(ElfError) as refused:
        resume_run(copy)
    assert all(part in str(refused.value) for part in (str(arrays[-1]), "--fallback", "step 2"))
    assert tree(copy) == before
    resume_run(copy, fallback=True)
    err = capsys.readouterr().err
    assert "step 2" in err and "1 steps" in err
    assert weights(copy) == weights(tiny_run()) and losses(copy) == losses(tiny_run())
    assert {name: before[f"checkpoints/3/{name}"] for name in tree(copy / "checkpoints" / "damaged-3")} == tree(
        copy / "checkpoints" / "damaged-3"
    )


def test_killed_between_saving_and_sealing(copy):
    """No manifest: the checkpoint is verified by reading it."""
    manifest = copy / "checkpoints" / "3" / seal.MANIFEST_FILE
    manifest.unlink()
    resume_run(copy)
    assert weights(copy) == weights(tiny_run())
    for path in (copy / "checkpoints" / "3" / "params").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-10])
    manifest.unlink(missing_ok=True)
    with pytest.raises(ElfError, match=r"checkpoints/3"):
        resume_run(copy)
    resume_run(copy, fallback=True)
    assert weights(copy) == weights(tiny_run())


def test_nothing_is_started_over_if_no_checkpoint_is_intact(copy):
    for step in (1, 2, 3):
        flip(copy / "checkpoints" / str(step) / "_CHECKPOINT_METADATA")
    before = tree(copy)
    for fallback in (False, True):
        with pytest.raises(ElfError, match="checkpoints"):
            resume_run(copy, fallback=fallback)
        assert tree(copy) == before


def test_sampling_refuses_a_damaged_part(copy):
    part = max((copy / "checkpoints" / "3" / "ema").rglob("d/*"), key=lambda path: path.stat().st_size)
    flip(part)
    with pytest.raises(ElfError, match=r"checkpoints/3/ema.*1, 2, 3"):
        load_weights(copy)
    assert load_weights(copy, ema=False)[1] == 3 and load_weights(copy, step=2)[1] == 2


def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint(copy, monkeypatch):
    """From the save on, files over two kilobytes cannot be written: it fails as on a full disk."""
    shutil.rmtree(copy / "checkpoints" / "3")
    before = weights(copy)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = checkpoint.save

    def save_on_a_full_disk(manager, state, **options):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        save(manager, state, **options)

    monkeypatch.setattr(checkpoint, "save", save_on_a_full_disk)
    try:
        with pytest.raises(ElfError, match=r"checkpoints.*step 2") as failed:
            resume_run(copy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(failed.value)
    assert seal.damage(copy / "checkpoints" / "2") is None and weights(copy) == before
    monkeypatch.undo()
    resume_run(copy)
    assert weights(copy) == weights(tiny_run())


def test_checkpoints_are_hashed_beside_training(copy, monkeypatch):
    shutil.rmtree(copy / "checkpoints" / "3")
    threads, sealed = [], seal.seal

    def recorded(folder):
        threads.append(threading.current_thread().name)
        sealed(folder)

    monkeypatch.setattr(seal, "seal", recorded)
    resume_run(copy)
    assert threads and all(name.startswith("seal") for name in threads)
    assert seal.is_sealed(copy / "checkpoints" / "3") and seal.damage(copy / "checkpoints" / "3") is None


WITHOUT_PERMISSION = """
import os, sys
from elfcli.__main__ import main
from elfcli.runs import checkpoint
folder, save = os.path.join(sys.argv[2], "checkpoints"), checkpoint.save
def save_without_permission(*arguments, **options):
    os.chmod(folder, 0o500)
    if os.geteuid() == 0:  # whom nothing is forbidden
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    save(*arguments, **options)
checkpoint.save = save_without_permission
main()
"""


def test_lost_permissions_while_saving_leave_the_last_checkpoint():
    """The folder of checkpoints turns read-only when a save begins; the process ends at once and reports it."""
    with tempfile.TemporaryDirectory() as name:  # one that every user may enter
        os.chmod(name, 0o755)
        folder = Path(shutil.copytree(tiny_run(), Path(name) / "run"))
        shutil.rmtree(folder / "checkpoints" / "3")
        before = tree(folder / "checkpoints")
        command = [sys.executable, "-c", WITHOUT_PERMISSION, "resume", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        os.chmod(folder / "checkpoints", 0o700)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
        assert "Permission denied" in errors[0] and "step 2" in errors[0]
        assert tree(folder / "checkpoints") == before
        resume_run(folder)
        assert weights(folder) == weights(tiny_run())


def test_the_best_checkpoint_is_kept_besides_the_last(copy, monkeypatch, capsys):
    """The smallest figure is at step 5, where no checkpoint is due; the resumed run has none better; NaN is never the
    best."""
    figures = {4: 0.5, 5: 0.4, 6: 0.6, 7: float("nan")}

    def evaluate_if_due(model, slice_, ema, done, length):
        return ({"val_loss": figures[done]} if done in figures else {}), ""

    monkeypatch.setattr(loop, "evaluate_if_due", evaluate_if_due)
    resume_run(copy, sets=["steps=7", "save_every_steps=2", "keep_checkpoints=1", "warmup_steps=1"])
    assert json.loads((copy / "best.json").read_text()) == {"step": 5, "figure": "val_loss", "value": 0.4}
    assert run.checkpoint_steps(copy) == [5, 7] and run.best_of(copy)["step"] == 5
    err = capsys.readouterr().err
    assert f"{copy}@best" in err and "val_loss 0.4" in err
    best = load_weights(copy, step=5)
    assert open_source(f"{copy}@best").step == 5 and open_source(f"{copy}@7").step == 7
    for name, at_step, message in (("best", 7, "step 5, not 7"), ("bset", None, "'best'"), ("6", None, "5, 7")):
        with pytest.raises(InputError, match=message):
            open_source(f"{copy}@{name}", step=at_step)
    resume_run(copy, sets=["steps=9"])
    assert run.checkpoint_steps(copy) == [5, 9]
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), best[0], load_weights(copy, step=5)[0]))
    shutil.rmtree(copy / "checkpoints" / "5")
    assert run.best_of(copy) is None
    with pytest.raises(InputError, match="@best"):
        open_source(f"{copy}@best")


def test_a_second_process_learns_who_holds_the_run(copy):
    code = (
        "import sys, pathlib\nfrom elfcli.runs.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(copy)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    before = tree(copy)
    with pytest.raises(ElfError, match=rf"{other.pid} .*{os.uname().nodename} .*20"):
        resume_run(copy)
    assert tree(copy) == before
    other.kill()  # the system releases what it held
    other.communicate()
    with locked(copy):
        assert json.loads((copy / run.HOLDER_FILE).read_text())["pid"] == os.getpid()
        with pytest.raises(ElfError, match=str(os.getpid())), locked(copy):
            pass


def starting(data: Path, folder: Path, call: str) -> subprocess.CompletedProcess:
    """Runs `elf train` on a tiny network and kills it where it would first call this function."""
    code = (
        "import os, signal, sys\nfrom elfcli.__main__ import main\n"
        "from elfcli import outputs\nfrom elfcli.runs import folder as run\nfrom elfcli.training import start\n"
        f"real = {call}\n"
        "def die(*values, **_):\n"
        "    if str(values[0]).endswith(outputs.LOCK + '.new'): return real(*values)\n"
        f"    os.kill(os.getpid(), signal.SIGKILL)\n{call} = die\n"
    )
    command = [sys.executable, "-c", code + "main()", "train", "--task", "toy-de-en", "--data", str(data)]
    options = [option for setting in SETTINGS for option in ("-s", setting)]
    return subprocess.run([*command, *options, "-o", str(folder)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("call", ["start.train", "run.Path.rename"])
def test_killed_before_the_tokenizer_is_written(tmp_path, elf, call):
    """After the settings were written, before or while the tokenizer is: the run can be resumed and sampled."""
    folder, tokenizer = tmp_path / "run", run.TOKENIZER_FOLDER
    done = starting(tiny_run().parent / "data", folder, call)
    assert done.returncode == -9 and run.is_run(folder) and not (folder / tokenizer).exists(), done.stderr
    assert bool(list(folder.glob(".tokenizer.*/new"))) == (call == "run.Path.rename")
    resume_run(folder)
    assert tree(folder / tokenizer) == tree(tiny_run() / tokenizer) and weights(folder) == weights(tiny_run())
    assert not list(folder.glob(".*.part")) and not list(folder.glob(".tokenizer.*"))
    data = ["--data", tiny_run().parent / "data", "--num-samples", 2, "--steps", 2]
    assert elf("sample", "--checkpoint", folder, *data)[0] == 0


def test_killed_before_the_settings_are_written(tmp_path):
    """Leftovers of the first write are not a reason to refuse the same command."""
    folder = tmp_path / "run"
    done = starting(tiny_run().parent / "data", folder, "outputs.os.fsync")
    assert done.returncode == -9, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [".config.toml.part", run.LOCK_FILE, run.HOLDER_FILE]
    run.check_new(folder)
    run.create_run(folder, "")
    assert sorted(path.name for path in folder.iterdir()) == [run.LOCK_FILE, run.HOLDER_FILE, run.CONFIG_FILE]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="other"):
        run.check_new(tmp_path / "other")
