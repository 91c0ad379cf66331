"""Memory that a device has and uses."""

import math
import os
import resource
import sys
from pathlib import Path

import jax

from elfcli.parallel.agree import gather
from elfcli.parallel.mesh import device_memory

EXHAUSTED = "RESOURCE_EXHAUSTED"
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_of_device() -> int | None:
    """Return the bytes that one device may use. A CPU's is its share of the machine's or the container's memory."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device_memory(device)
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP_LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    return min(limits) // jax.local_device_count()


def least_memory() -> int | None:
    """Return the smallest `memory_of_device` of all processes, which call it together: they decide the same by it."""
    known = [memory for memory in gather(memory_of_device()) if memory is not None]
    return min(known, default=None)


def used_memory() -> int:
    """Return the peak bytes in use so far, of one device, or on a CPU of this process."""
    if peak := (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def size_text(size: float) -> str:
    """Return a size in GiB, `more` for an infinite one."""
    return f"{size / 2**30:.1f} GiB" if math.isfinite(size) else "more"
