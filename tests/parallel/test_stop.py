"""Stop requests are answered while the main thread waits in C."""

import signal
import subprocess
import sys
import time

CODE = """
import ctypes, sys
from elfcli.parallel.stop import stop_requests
with stop_requests(lambda: "stopping: soon") as requested:
    print("ready", flush=True)
    # A wait that no signal ends and during which Python runs no handler.
    libc = ctypes.CDLL(None)
    end = __import__("time").monotonic() + float(sys.argv[1])
    while (left := end - __import__("time").monotonic()) > 0:
        libc.usleep(int(left * 1e6))
print("done", requested(), flush=True)
"""


def started(seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", CODE, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_signal_is_answered_at_once_and_the_work_continues():
    process = started(2.0)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.stderr.readline() == "SIGTERM: stopping: soon\n"
    assert time.monotonic() - start < 1
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "done SIGTERM\n", "")


def test_the_second_signal_leaves_at_once():
    process = started(60.0)
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 1
    assert (process.returncode, out) == (130, "") and "SIGINT" in err
