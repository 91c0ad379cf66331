"""Several processes are one run: the same weights and samples, stopped and failed together."""

import json
import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from gpt2_files import write_judge
from many_processes import ended, start, together, training, wait_for
from tiny_run import tiny_run

from elfcli.errors import ElfError, InputError
from elfcli.parallel.place import PROCESS_VARIABLES, ProcessLayout, find_place
from elfcli.runs import folder as run
from elfcli.runs import seal
from elfcli.runs.checkpoint import CHECKPOINT_PARTS, read_without_barriers

STEPS = ("steps=8", "save_every_steps=2", "log_every_steps=1", "depth=1")


@pytest.fixture(scope="module")
def data() -> Path:
    return tiny_run().parent / "data"


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Path:
    """One process with two devices."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    (only,) = together(1, *training(data, folder, *STEPS), devices=2)
    assert only.code == 0, only.err
    return folder


def states(folder: Path, step: int = 8) -> dict[str, np.ndarray]:
    arrays = {}
    for part in CHECKPOINT_PARTS:
        tree = read_without_barriers((folder / "checkpoints" / str(step) / part).absolute())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[part + jax.tree_util.keystr(path)] = leaf
    return arrays


def assert_same_run(ours: Path, theirs: Path, rtol: float = 1e-5) -> None:
    a, b = states(ours), states(theirs)
    assert a.keys() == b.keys() and len(a) > 50
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-6, err_msg=name)
    rows = [[(row["step"], round(row["loss"], 4)) for row in run.read_metrics(folder)] for folder in (ours, theirs)]
    assert rows[0] == rows[1] and [step for step, _ in rows[0]] == list(range(1, 9))


def steps_of(folder: Path) -> int:
    return len(run.read_metrics(folder))


def test_stopped_by_a_signal_to_one_of_two_and_resumed_by_one(data, straight, tmp_path):
    """SIGTERM to process 1: both save the same step and report it once; one process with two devices continues."""
    folder = tmp_path / "run"
    slow = "import time\nfrom elfcli.runs import folder as run\nwrite = run.append_metrics\n" \
           "run.append_metrics = lambda *a: (write(*a), time.sleep(0.3))"  # fmt: skip
    processes = start(2, *training(data, folder, *STEPS), code=slow)
    wait_for(lambda: steps_of(folder) >= 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    first, second = ended(processes)
    assert (first.code, second.code) == (75, 75), (first, second)
    assert second.err == "" and first.out == second.out == ""
    last = first.err.splitlines()[-1]
    assert last.startswith("error: ") and "SIGTERM" in last and "elf resume" in last
    stopped = steps_of(folder)
    assert 2 <= stopped < 8 and seal.is_sealed(folder / "checkpoints" / str(stopped))
    (alone,) = together(1, "resume", folder, devices=2)
    assert alone.code == 0, alone.err
    assert_same_run(folder, straight)


def test_two_processes_sample_what_one_does(tmp_path, elf):
    """Ten samples in batches of six, which do not divide: whole files, written once, the same."""
    words = ["sample", "--checkpoint", tiny_run(), "--data", tiny_run().parent / "data"]
    words += ["--num-samples", 10, "--batch-size", 5, "--steps", 2, "--output"]
    code, out, err = elf(*words, tmp_path / "one.jsonl")
    first, second = together(2, *words, tmp_path / "two.jsonl")
    assert code == first.code == second.code == 0, (err, first, second)
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()
    assert first.out == out and "generated" in first.out
    assert second.out == second.err == "" and "error" not in first.err


def test_a_failure_of_one_ends_both_with_its_reason(data, tmp_path):
    """Process 1 fails at its first batch, while process 0 compiles or waits; process 0 reports it, and both end."""
    breaks = "import elfcli.training.loop as loop\ndef put(*_): raise ValueError('the cable is out')\n" \
             "if process: loop.put_batch = put"  # fmt: skip
    first, second = together(2, *training(data, tmp_path / "run", *STEPS), code=breaks)
    assert (first.code, second.code) == (1, 1)
    last = first.err.splitlines()[-1]
    assert last.startswith("error: process 1: ") and "ValueError: the cable is out" in last and second.err == ""


def test_settings_that_differ_are_reported_before_anything_is_written(data, tmp_path):
    other = "import sys\nif process: sys.argv += ['--lr', '0.5']"
    first, second = together(2, *training(data, tmp_path / "run"), code=other)
    assert (first.code, second.code) == (2, 2) and second.err == ""
    assert all(part in first.err for part in ("error: process 1: ", "optimization.lr", "0.5", "0.01"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_input_that_one_lacks_is_reported_before_anything_is_written(data, tmp_path):
    other = "import sys\nif process: sys.argv += ['--data', '/nowhere/at/all']"
    first, second = together(2, *training(data, tmp_path / "run"), code=other)
    assert (first.code, second.code) == (2, 2) and first.err.startswith("error: process 1: ")
    assert "/nowhere/at/all" in first.err and second.err == "" and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ((None, 2, 0), "--coordinator .*missing"),
        (("host:1", None, None), "--num-processes .* and --process-id .* missing"),
        (("host:1", 2, 2), "--process-id 2: expected 0 to 1"),
        (("host:1", 2, -1), "--process-id -1"),
        (("host:1", 0, 0), "--num-processes 0"),
        (("host", 2, 0), "HOST:PORT"),
        (("host:99999", 2, 0), "HOST:PORT"),
        (("http://host:1", 2, 0), "HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        find_place({}, *options)


def test_where_a_process_stands():
    none = (None, None, None)
    assert find_place({}, *none) is None and find_place({}, "host:1", 1, 0) is None
    jax_variables = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert find_place(jax_variables, *none) == ProcessLayout("a:1", 4, 3)
    assert find_place(jax_variables, None, None, 2) == ProcessLayout("a:1", 4, 2)
    with pytest.raises(InputError, match="JAX_PROCESS_ID"):
        find_place(jax_variables | {"JAX_PROCESS_ID": "x"}, *none)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            r"WORLD_SIZE=2 \(torchrun or accelerate\).*--num-processes 2 .*\$RANK .*JAX_PRO",
        ),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, r"PMI_SIZE=4 \(MPICH or Intel MPI\).*--process-id \$PMI_RANK "),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, r"OMPI_COMM_WORLD_SIZE=2 \(Open MPI\).*--num-processes 1 to run alone"),
    ],
)
def test_launchers_that_are_not_read_are_named(variables, said):
    """Open MPI 5 no longer sets what JAX detects it by."""
    with pytest.raises(InputError, match=said):
        find_place(variables, None, None, None)
    assert find_place(variables, None, 1, None) is None
    assert find_place(variables, "a:1", 2, 1) == ProcessLayout("a:1", 2, 1)
    assert find_place({name: "1" for name in variables}, None, None, None) is None


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8", "SLURM_PROCID": "5",
         "SLURM_STEP_NODELIST": "gpu[007-009,012]", "SLURM_LOCALID": "1",
         "SLURM_STEP_TASKS_PER_NODE": "2(x4)"}  # fmt: skip


@pytest.fixture
def place_in(monkeypatch):
    """The place of a process with these variables in its environment, without options."""

    def place(**variables: str) -> ProcessLayout | None:
        for name in (*PROCESS_VARIABLES.values(), *SLURM, "CUDA_VISIBLE_DEVICES", *variables):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return find_place(os.environ, None, None, None)

    return place


def test_a_slurm_step_of_several_tasks_is_detected(place_in):
    place = place_in(**SLURM)
    assert (place.num_processes, place.process_id) == (8, 5) and place.coordinator.startswith("gpu007:")
    assert place_in(**SLURM | {"SLURM_STEP_NODELIST": "solo"}).coordinator.startswith("solo:")
    assert place_in(**SLURM, JAX_COORDINATOR_PORT="4321").coordinator == "gpu007:4321"
    assert place_in(**SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None, "the shell of a job of several tasks"
    batch = {name: value for name, value in SLURM.items() if "STEP" not in name}
    assert place_in(**batch) is None and place_in() is None


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, [1]),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_TRES_PER_TASK": "cpu=4,gres/gpu=2"}, None),
    ],
    ids=["all", "shared", "alone on its host", "one per task", "two per task", "two per task, as TRES"],
)
def test_a_task_takes_its_own_gpus(place_in, variables, devices):
    """One by its local number if the tasks of a host share its GPUs; else all that it sees, numbered from 0."""
    assert place_in(**SLURM | variables).local_devices == devices


def test_tasks_of_open_mpi_are_detected(place_in):
    mpi = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", "OMPI_COMM_WORLD_SIZE": "4",
           "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
           "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}  # fmt: skip
    place = place_in(**mpi)
    assert (place.num_processes, place.process_id, place.local_devices) == (4, 3, [1])
    assert place.coordinator.startswith("10.96.0.1:")
    assert place_in(**mpi | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}).local_devices is None


def test_hosts_of_a_tpu_slice_are_detected(place_in, monkeypatch):
    hosts = {"TPU_WORKER_HOSTNAMES": "localhost,b", "TPU_WORKER_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "",
             "MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0"}  # fmt: skip
    assert place_in(**hosts) is None, "no TPU chips"
    monkeypatch.setattr("elfcli.parallel.place.has_tpu", lambda: True)
    for module in ("cluster", "cloud_tpu_cluster"):
        monkeypatch.setattr(f"jax._src.clusters.{module}.running_in_cloud_tpu_vm", True)
    assert place_in(**hosts) == ProcessLayout("localhost:8482", 2, 1)
    assert place_in(**hosts | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None


def test_the_metadata_server_is_asked_only_with_tpu_chips(place_in, monkeypatch):
    asked = []

    def get_metadata(key):
        asked.append(key)
        raise ConnectionError("no metadata server")

    monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.get_metadata", get_metadata)
    assert place_in() is None and place_in(**SLURM) is not None and asked == []
    monkeypatch.setattr("elfcli.parallel.place.has_tpu", lambda: True)
    assert place_in() is None and asked == [], "JAX looks for the chips itself"
    monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.running_in_cloud_tpu_vm", True)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    assert place_in() is None and asked, "a TPU host without a metadata server is a single process"
    with pytest.raises(ElfError, match="no metadata server"):
        place_in(TPU_WORKER_HOSTNAMES="localhost,b", TPU_WORKER_ID="1")


def test_an_unreachable_coordinator_is_named(tmp_path):
    """A coordinator that cannot be reached: one line, within the limit."""
    place = ["resume", tmp_path, "--coordinator", "127.0.0.1:9", "--num-processes", 2, "--join-timeout", 1]
    (lost,) = together(1, *place, "--process-id", 1)
    assert lost.code == 1 and lost.err.startswith("error: process 1 of 2: ") and "127.0.0.1:9" in lost.err
    assert lost.err.count("\n") == 1


def test_a_port_that_is_taken():
    import socket

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ElfError, match=f"127.0.0.1:{port}"):
            ProcessLayout(f"127.0.0.1:{port}", 2, 0).check_port()


@pytest.mark.slow
def test_four_processes_then_two_then_one(data, tmp_path):
    """Stopped twice, each time continued with fewer processes and the same four devices; batches of two lengths."""
    whole, folder, steps = tmp_path / "whole", tmp_path / "run", (*STEPS, "buckets=[12]")
    (only,) = together(1, *training(data, whole, *steps), devices=4)
    assert only.code == 0, only.err
    stop = "import os, signal\nfrom elfcli.runs import folder as run\nwrite = run.append_metrics\n" \
           "def append(folder, row):\n    write(folder, row)\n" \
           "    if row['step'] == {}: os.kill(os.getpid(), signal.SIGTERM)\nrun.append_metrics = append"  # fmt: skip
    for code in together(4, *training(data, folder, *steps), code=stop.format(2)):
        assert code.code == 75, code.err
    for code in together(2, "resume", folder, devices=2, code=stop.format(5)):
        assert code.code == 75, code.err
    (last,) = together(1, "resume", folder, devices=4)
    assert last.code == 0 and steps_of(folder) > 2, last.err
    assert_same_run(folder, whole)


@pytest.mark.slow
def test_a_process_that_is_killed_is_missed(data, straight, tmp_path):
    """SIGKILL of process 1: process 0 reports it and ends; the run continues from its last checkpoint."""
    folder = tmp_path / "run"
    slow = "import time\nfrom elfcli.runs import folder as run\nwrite = run.append_metrics\n" \
           "run.append_metrics = lambda *a: (write(*a), time.sleep(0.5))"  # fmt: skip
    processes = start(2, *training(data, folder, *STEPS), code=slow)
    wait_for(lambda: steps_of(folder) >= 4, processes)
    os.kill(processes[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    first, second = ended(processes)
    assert (first.code, second.code) == (1, -9) and time.monotonic() - killed < 60
    assert first.err.splitlines()[-1].startswith("error: process 1 ")
    for process in together(2, "resume", folder):
        assert process.code == 0, process.err
    assert_same_run(folder, straight)


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_ends_both(data, tmp_path):
    full = "import resource\nif process: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
    first, second = together(2, *training(data, tmp_path / "run", *STEPS), code=full)
    assert (first.code, second.code) == (1, 1)
    assert "process 1: " in first.err and str(tmp_path / "run") in first.err.splitlines()[-1]


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(tmp_path):
    """Every figure, the perplexity among them."""
    judge = write_judge(tmp_path / "judge")
    words = ["eval", "--checkpoint", tiny_run(), "--data", tiny_run().parent / "data", "--num-samples", 6]
    words += ["--set", 'metrics=["bleu","rouge","ppl"]', "--set", f"eval_ppl_model={judge}", "--overwrite"]
    results = []
    for count in (1, 2):
        file = tmp_path / f"{count}.json"
        for process in together(count, *words, "--output", tmp_path / str(count), "--json", file):
            assert process.code == 0, process.err
        results.append([{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(file.read_text())])
    for one, two in zip(*results, strict=True):
        for a, b in zip(one.pop("scores"), two.pop("scores"), strict=True):
            assert a.keys() == b.keys() and a["value"] == pytest.approx(b["value"], rel=1e-5)
        assert one == two
