"""`elf` as several processes on this machine, for tests: started together, each with its own output."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from helpers import COLLECT_AFTER
from tiny_run import SETTINGS

FEW_COLLECTIONS = f"import gc; gc.set_threshold({COLLECT_AFTER})"
FLAGS = "--xla_force_host_platform_device_count={}"


@dataclass(frozen=True)
class Ended:
    """How one process ended."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ELF_", "SLURM_"))}
    return kept | {"XLA_FLAGS": f"{kept.get('XLA_FLAGS', '')} {FLAGS.format(devices)}"}


def start(count: int, *arguments, devices: int = 1, code: str = "") -> list[subprocess.Popen]:
    """The processes, started; `code` is Python that each runs before `elf`, with `process` its number."""
    port, processes = free_port(), []
    for process in range(count):
        place = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", count, "--process-id", process]
        words = [str(word) for word in (*arguments, *(place if count > 1 else ()))]
        program = f"process = {process}\n{code}\n{FEW_COLLECTIONS}\nfrom elfcli.__main__ import main\nmain()"
        processes.append(
            subprocess.Popen([sys.executable, "-c", program, *words], env=environment(devices), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        )  # fmt: skip
    return processes


def ended(processes: list[subprocess.Popen], timeout: float = 180) -> list[Ended]:
    """What became of them; none is left behind."""
    deadline = time.monotonic() + timeout
    try:
        results = []
        for process in processes:
            out, err = process.communicate(timeout=max(deadline - time.monotonic(), 1))
            results.append(Ended(process.returncode, out, err))
        return results
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


def together(count: int, *arguments, devices: int = 1, code: str = "") -> list[Ended]:
    return ended(start(count, *arguments, devices=devices, code=code))


def wait_for(condition, processes: list[subprocess.Popen], timeout: float = 180) -> None:
    """Waits until the condition holds; fails with what a process said if it ends before."""
    deadline = time.monotonic() + timeout
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def training(data: Path, folder: Path, *sets: str) -> list:
    """Arguments of `elf train` for a tiny network."""
    words = ["train", "--task", "toy-de-en", "--data", data, "--output", folder]
    return [*words, *(word for setting in (*SETTINGS, *sets) for word in ("--set", setting))]


DYING = """
import os, signal, sys
from elfcli.__main__ import main
left, output = int(sys.argv.pop(1)), sys.argv[-1]
def dying(rename):
    def until_it_is_time(source, target, **options):
        global left
        left -= str(target).startswith(output)
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(source, target, **options)
    return until_it_is_time
os.rename, os.replace = dying(os.rename), dying(os.replace)
main()
"""


def killed(renames: int, *command) -> None:
    """Runs `elf` until it has made so many renames to its output (the last word), and kills it before the next."""
    words = [sys.executable, "-c", DYING, str(renames), *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
