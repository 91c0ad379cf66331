"""The machines of `elf plan`: this one, TPU slices and GPUs, for which JAX's plugins compile without a device."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from elfcli.config.cards import card_of
from elfcli.errors import ElfError
from elfcli.parallel.memory import memory_of_device
from elfcli.parallel.timing import seconds_per_step
from elfcli.planning.gpus import Gpus, find_gpus, rates_of, target_config
from elfcli.planning.hlo import Rates
from elfcli.planning.slices import LOCAL, TPU_KINDS


@dataclass(frozen=True)
class Machine:
    """Devices to compile for. memory: usable bytes per device. links: bytes per second between devices; None: unknown.
    gpus: the cards, for GPUs that are described and not there."""

    name: str
    platform: str
    devices: list
    memory: int
    rates: Rates
    links: float | None
    gpus: Gpus | None = None


def find_machine(name: str) -> Machine:
    """Return the machine `local`, a TPU slice such as `v5p-64`, or GPUs such as `h100x8`. Raise ElfError if the
    compiler does not know them."""
    if name == LOCAL:
        devices = jax.devices()
        # A device that does not report its memory may use a share of the main memory.
        memory = memory_of_device() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)
        known = card_of(devices[0].device_kind)
        return Machine(name, devices[0].platform, devices, memory, rates_of(known) if known else measured_rates(), None)
    if gpus := find_gpus(name):
        devices = described_devices(name, "cuda", "", topology=gpus.topology, target_config=target_config(gpus.card))
        return Machine(name, "gpu", devices, gpus.memory, rates_of(gpus.card), gpus.links, gpus)
    kind, _, count = name.partition("-")
    chip = TPU_KINDS[kind]
    layout = chip.slices[int(count) // chip.cores]
    devices = described_devices(name, "tpu", f"{chip.library_name}:{'x'.join(map(str, layout))}")
    if len(devices) != prod(layout):
        raise ElfError(f"{name}: libtpu counts {len(devices)} devices, not {prod(layout)} chips")
    return Machine(name, "tpu", devices, chip.memory, rates_of_compiler(devices[0]), chip.links)


def described_devices(name: str, platform: str, kind: str, **options: str) -> list:
    """Return the devices that a plugin of JAX describes. Raise ElfError if it cannot."""
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(kind, platform, **options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ElfError(f"{name}: JAX's plugin for {platform} cannot describe it ({reason})") from None


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
    flops = 2 * 2048**3 / product_seconds
    kernels = flops if jax.default_backend() == "gpu" else None  # of libraries, which are not measured by type
    return Rates(flops, 2 * big.nbytes / sweep_seconds, kernels, kernels)
