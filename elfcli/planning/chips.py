"""The machines of `elf plan`: this one, and TPU slices, for which libtpu compiles without a TPU."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from elfcli.errors import ElfError
from elfcli.parallel.memory import memory_of_device
from elfcli.parallel.timing import seconds_per_step
from elfcli.planning.hlo import Rates
from elfcli.planning.slices import LOCAL, TPU_KINDS


@dataclass(frozen=True)
class Machine:
    """Devices to compile for. memory: bytes per device. links: bytes per second between devices; None: unknown."""

    name: str
    platform: str
    devices: list
    memory: int
    rates: Rates
    links: float | None


def find_machine(name: str) -> Machine:
    """Return the machine `local`, or a TPU slice such as `v5p-64`. Raise ElfError if libtpu does not know it."""
    if name == LOCAL:
        devices = jax.devices()
        # A device that does not report its memory may use a share of the main memory.
        memory = memory_of_device() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)
        return Machine(name, devices[0].platform, devices, memory, measured_rates(), None)
    from jax.experimental import topologies

    kind, _, count = name.partition("-")
    chip = TPU_KINDS[kind]
    layout = chip.slices[int(count) // chip.cores]
    topology_name = f"{chip.library_name}:{'x'.join(map(str, layout))}"
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=topology_name)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ElfError(f"{name}: libtpu cannot describe it ({' '.join(str(error).split())[:300]})") from None
    devices = list(topology.devices)
    if len(devices) != prod(layout):
        raise ElfError(f"{name}: libtpu counts {len(devices)} devices, not {prod(layout)} chips")
    return Machine(name, "tpu", devices, chip.memory, rates_of_compiler(devices[0]), chip.links)


def rates_of_compiler(device: jax.Device) -> Rates:
    """Return XLA's assumed rates of a chip, from its estimates for a matrix product and an addition."""
    sharding = jax.sharding.SingleDeviceSharding(device)

    def estimate(function: Callable, dtype: Any, *sizes: int) -> Any:
        jitted = jax.jit(function, in_shardings=sharding, out_shardings=sharding)
        return jitted.lower(jax.ShapeDtypeStruct(sizes, dtype)).compile().cost_analysis()

    product = estimate(lambda x: x @ x, jnp.bfloat16, 8192, 8192)
    sweep = estimate(lambda x: x + 1, jnp.float32, 2**14, 2**13)
    return Rates(product["flops"] / product["optimal_seconds"], sweep["bytes accessed"] / sweep["optimal_seconds"])


@cache
def measured_rates() -> Rates:
    """Measure the rates of the local device with a matrix product and an addition (takes about a second)."""
    x, big = jnp.ones((2048, 2048), jnp.float32), jnp.ones(2**25, jnp.float32)
    product, sweep = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    product_seconds = seconds_per_step(lambda: product(x), warm=1, at_least=0)
    sweep_seconds = seconds_per_step(lambda: sweep(big), warm=1, at_least=0)
    return Rates(2 * 2048**3 / product_seconds, 2 * big.nbytes / sweep_seconds)
