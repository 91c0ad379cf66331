"""The number of processes and of this one: from options or JAX's variables, from SLURM, or from a TPU pod slice."""

import os
import re
import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from elfcli.errors import ElfError, InputError

PROCESS_VARIABLES = {
    "--coordinator": "JAX_COORDINATOR_ADDRESS",
    "--num-processes": "JAX_NUM_PROCESSES",
    "--process-id": "JAX_PROCESS_ID",
}
TPU_WORKERS = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints"


@dataclass(frozen=True)
class ProcessLayout:
    """coordinator: HOST:PORT of process 0; None: JAX detects everything. local_devices: None for all."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_devices: list[int] | None = None

    @property
    def who(self) -> str:
        return "this process" if self.process_id is None else f"process {self.process_id} of {self.num_processes}"

    def reachable(self) -> bool:
        """Whether the coordinator accepts connections."""
        if self.coordinator is None:
            return True
        host, _, port = self.coordinator.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
                return True
        except OSError:
            return False

    def check_port(self) -> None:
        """ElfError where process 0 cannot listen at the coordinator's port: JAX would crash."""
        if self.coordinator is None or self.process_id != 0:
            return
        try:
            socket.create_server(("", int(self.coordinator.rpartition(":")[2]))).close()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ElfError(f"{self.coordinator}: process 0 cannot listen there ({why}); give another port") from None

    def missing(self) -> str:
        """What went wrong, where connecting takes too long."""
        if self.process_id and not self.reachable():
            return f"the coordinator {self.coordinator} cannot be reached"
        return "not all processes came" + (f" to {self.coordinator}" if self.coordinator else "")


def find_place(
    environ: Mapping[str, str], coordinator: str | None, num_processes: int | None, process_id: int | None
) -> ProcessLayout | None:
    """This process's place; None for a single process. InputError for options that contradict each other."""
    options = dict(zip(PROCESS_VARIABLES, (coordinator, num_processes, process_id), strict=True))
    given = {name: environ.get(variable) if options[name] is None else options[name]
             for name, variable in PROCESS_VARIABLES.items()}  # fmt: skip
    missing = [name for name, value in given.items() if value in (None, "")]
    if not missing:
        return explicit_place(given)
    if all(value is None for value in options.values()):
        found = slurm_place(environ) or tpu_place(environ)
        if found is not None or len(missing) == len(given):
            return found
    names = " and ".join(f"{name} (or {PROCESS_VARIABLES[name]})" for name in missing)
    raise InputError(
        f"several processes take --coordinator, --num-processes and --process-id together: {names} missing"
    )


def explicit_place(given: Mapping[str, object]) -> ProcessLayout | None:
    """The place from options and JAX's variables; None for a single process."""
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
    try:
        return int(str(value))
    except ValueError:
        raise InputError(f"{name} {value}: expected a whole number (from {PROCESS_VARIABLES[name]})") from None


def slurm_place(environ: Mapping[str, str]) -> ProcessLayout | None:
    """The place in a SLURM step of several tasks. A task alone on its host uses all devices there; one of several uses
    the device of its local number."""
    try:
        count, index = int(environ["SLURM_STEP_NUM_TASKS"]), int(environ["SLURM_PROCID"])
        job, step, nodes = int(environ["SLURM_JOB_ID"]), environ["SLURM_STEP_ID"], environ["SLURM_STEP_NODELIST"]
        tasks, local = environ.get("SLURM_STEP_TASKS_PER_NODE", "1"), int(environ.get("SLURM_LOCALID", "0"))
    except (KeyError, ValueError):
        return None
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if count < 2 or first is None:
        return None
    port = environ.get("JAX_COORDINATOR_PORT") or 40000 + (job * 31 + int(re.sub(r"\D", "", step) or 0)) % 20000
    shared = any(int(tasks_there) > 1 for tasks_there in re.findall(r"(\d+)(?:\(x\d+\))?", tasks))
    return ProcessLayout(f"{first[1]}{first[2] or ''}:{port}", count, index, [local] if shared else None)


def tpu_place(environ: Mapping[str, str]) -> ProcessLayout | None:
    """A place that JAX detects, on a TPU slice of several hosts."""
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if workers is None and has_tpu() and "TPU_SKIP_MDS_QUERY" not in environ:
        workers = tpu_workers()
    several = "," in (workers or "") or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1
    return ProcessLayout() if several else None


def has_tpu() -> bool:
    """Whether this machine has TPU chips and their library (to plan for TPUs the library is enough)."""
    chips = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    return chips and find_spec("libtpu") is not None and os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")


def tpu_workers() -> str | None:
    """The hosts of this TPU VM's slice, as the metadata server of Google Cloud lists them."""
    request = urllib.request.Request(TPU_WORKERS, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return answer.read().decode()
    except (OSError, ValueError):
        return None
