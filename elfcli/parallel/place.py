"""The number of processes and of this one: from options, from JAX's variables, or from what JAX detects."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from elfcli.errors import ElfError, InputError, first_line

PROCESS_VARIABLES = {
    "--coordinator": "JAX_COORDINATOR_ADDRESS",
    "--num-processes": "JAX_NUM_PROCESSES",
    "--process-id": "JAX_PROCESS_ID",
}
TASK_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables with the number of tasks that `srun` or `mpirun` started together."""
LAUNCHERS = {
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "Open MPI"),
    "SLURM_STEP_NUM_TASKS": ("SLURM_PROCID", "srun"),
    "MV2_COMM_WORLD_SIZE": ("MV2_COMM_WORLD_RANK", "MVAPICH"),
    "PMI_SIZE": ("PMI_RANK", "MPICH or Intel MPI"),
    "JSM_NAMESPACE_SIZE": ("JSM_NAMESPACE_RANK", "jsrun"),
    "WORLD_SIZE": ("RANK", "torchrun or accelerate"),
}
"""Variables with a number of processes: that of the process, and who sets them. Without a place they are not read."""


@dataclass(frozen=True)
class ProcessLayout:
    """This process among others. coordinator: HOST:PORT of process 0. local_devices: GPUs to use, None for all."""

    coordinator: str
    num_processes: int
    process_id: int
    local_devices: list[int] | None = None

    @property
    def who(self) -> str:
        """The name of this process in messages."""
        return f"process {self.process_id} of {self.num_processes}"

    def reachable(self) -> bool:
        """Return whether the coordinator accepts connections."""
        host, _, port = self.coordinator.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
                return True
        except OSError:
            return False

    def check_port(self) -> None:
        """Raise ElfError if process 0 cannot listen at the coordinator's port: JAX would crash."""
        if self.process_id != 0:
            return
        try:
            socket.create_server(("", int(self.coordinator.rpartition(":")[2]))).close()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ElfError(f"{self.coordinator}: process 0 cannot listen at this address ({why}); choose another port "
                           "(--coordinator or JAX_COORDINATOR_PORT)") from None  # fmt: skip


def find_place(
    environ: Mapping[str, str], coordinator: str | None, num_processes: int | None, process_id: int | None
) -> ProcessLayout | None:
    """Return this process's place, None for a single process. Raise InputError for contradictory options."""
    options = dict(zip(PROCESS_VARIABLES, (coordinator, num_processes, process_id), strict=True))
    values = {name: environ.get(variable) if options[name] is None else options[name]
              for name, variable in PROCESS_VARIABLES.items()}  # fmt: skip
    missing = [name for name, value in values.items() if value in (None, "")]
    if not missing:
        return explicit_place(values)
    if str(values["--num-processes"]) == "1" and coordinator is None and process_id is None:
        return None
    if all(value is None for value in options.values()):
        place = detected_place(environ)
        if place is None and len(missing) == len(values):
            refuse_launchers(environ)
        if place is not None or len(missing) == len(values):
            return place
    names = " and ".join(f"{name} (or {PROCESS_VARIABLES[name]})" for name in missing)
    raise InputError(f"--coordinator, --num-processes and --process-id must be given together: {names} missing")


def refuse_launchers(environ: Mapping[str, str]) -> None:
    """Raise InputError if a launcher started several processes of which elf knows nothing: each would run alone."""
    for size, (rank, launcher) in LAUNCHERS.items():
        if environ.get(size, "").isdecimal() and int(environ[size]) > 1:
            variables = ", ".join(PROCESS_VARIABLES.values())
            index = f"${rank}" if rank in environ else "I"
            raise InputError(f"{size}={environ[size]} ({launcher}) is not read, so each process would run alone; pass "
                             f"--coordinator HOST:PORT --num-processes {environ[size]} --process-id {index} (or set "
                             f"{variables}), or --num-processes 1 to run alone")  # fmt: skip


def explicit_place(given: Mapping[str, object]) -> ProcessLayout | None:
    """Return the place that options and JAX's variables describe, None for a single process."""
    address = str(given["--coordinator"])
    count, index = (whole(name, given[name]) for name in ("--num-processes", "--process-id"))
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536) or re.search(r"\s|/", host):
        raise InputError(f"--coordinator {address}: expected HOST:PORT, for example 10.0.0.1:9876")
    if count < 1:
        raise InputError(f"--num-processes {count}: expected at least 1")
    if not 0 <= index < count:
        raise InputError(f"--process-id {index}: expected 0 to {count - 1}, for --num-processes {count}")
    return ProcessLayout(address, count, index) if count > 1 else None


def whole(name: str, value: object) -> int:
    """Return an option's value as an integer, or raise InputError."""
    try:
        return int(str(value))
    except ValueError:
        raise InputError(f"{name} {value}: expected a whole number (from {PROCESS_VARIABLES[name]})") from None


def detected_place(environ: Mapping[str, str]) -> ProcessLayout | None:
    """Return the place that JAX detects (SLURM, Open MPI, TPU slices), None for a single process. JAX is asked only in
    a step of several tasks or on a host with TPU chips: it would also wait for the other tasks of a SLURM job in its
    interactive step."""
    several_tasks = any(environ.get(name, "1") not in ("", "0", "1") for name in TASK_COUNTS)
    if not several_tasks and not has_tpu():
        return None
    from jax._src.clusters import ClusterEnv  # the detection of jax.distributed.initialize has no public name

    try:
        address, count, index, local = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 60)
    except (OSError, RuntimeError, ValueError) as error:
        hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
        if isinstance(error, OSError) and "," not in hosts:  # a TPU host without a metadata server
            return None
        raise ElfError(f"JAX cannot detect the processes ({first_line(error)}); pass --coordinator, --num-processes "
                       "and --process-id") from None  # fmt: skip
    if address is None or count is None or index is None or count < 2:
        return None
    takes_one = local is not None and shares_gpus(environ)
    return ProcessLayout(address, count, index, list(local or ()) if takes_one else None)


def shares_gpus(environ: Mapping[str, str]) -> bool:
    """Return whether this task sees GPUs of other tasks on its host, so that it must take the one of its local number.
    A task alone on its host, or with GPUs of its own (`--gpus-per-task`, numbered from 0 in every task), takes all."""
    tasks = re.findall(r"(\d+)(?:\(x\d+\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    tasks.append(environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
    visible = environ.get("CUDA_VISIBLE_DEVICES", environ.get("ROCR_VISIBLE_DEVICES"))
    per_task = environ.get("SLURM_GPUS_PER_TASK") or "gpu" in environ.get("SLURM_TRES_PER_TASK", "")
    sees_one = visible is not None and "," not in visible
    return max(map(int, tasks)) > 1 and not per_task and not sees_one


def has_tpu() -> bool:
    """Return whether this machine has TPU chips and libtpu (to plan for TPUs libtpu alone is enough)."""
    chips = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    return chips and find_spec("libtpu") is not None and os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")
