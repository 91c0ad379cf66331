"""NVIDIA cards by the names of `elf plan`, such as h100x8, with what XLA needs to compile for one that is not there."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

from elfcli.config.presets import presets_dir
from elfcli.planning.gpu_calls import collectives
from elfcli.planning.hlo import Rates

MAX_PER_HOST = 8


@dataclass(frozen=True)
class Gpus:
    """Equal cards in one or several hosts. facts: those of the card in configs/gpus.toml. assumed: its table."""

    card: str
    hosts: int
    per_host: int
    facts: dict[str, Any]
    assumed: dict[str, float]

    @property
    def topology(self) -> str:
        """Return XLA's name of the topology: slices, hosts of a slice, cards of a host."""
        return f"1x{self.hosts}x{self.per_host}"

    @property
    def memory(self) -> int:
        """Return the bytes of a card that a program may use."""
        return int(self.assumed["usable"] * self.facts["memory"])

    @property
    def rates(self) -> Rates:
        """Return the assumed rates of a card, shares of its peaks. Float32 products use TF32, at half the peak."""
        peak, shares = self.facts["tflops"] * 1e12, self.assumed
        products, attention = shares["arithmetic"] * peak, shares["attention"] * peak
        return Rates(products, shares["memory"] * self.facts["bandwidth"] * 1e9, products / 2, attention)

    @property
    def network(self) -> float:
        """Return the bytes per second that a host sends to others."""
        return self.assumed["network"] * 1e9

    @property
    def links(self) -> float:
        """Return the bytes per second between the cards: of a host's links, or of the network of several hosts."""
        return self.facts["links"] * 1e9 if self.hosts == 1 else self.network

    def notes(self, text: str, sent: float) -> tuple[str, ...]:
        """Return notes for the report: what is assumed, and a program's collectives. sent: their bytes."""
        rates, shares, links = self.rates, self.assumed, self.facts["links"]
        assumed = (f"assumed per card: {rates.flops / 1e12:.0f} TFLOP/s in bfloat16 products, "
                   f"{shares['attention'] * self.facts['tflops']:.0f} in attention, {rates.bytes / 1e12:.3g} TB/s "
                   f"({shares['arithmetic']:.0%}, {shares['attention']:.0%} and {shares['memory']:.0%} of the peaks), "
                   f"{shares['usable']:.0%} of the memory; compiled without a card, with untuned kernels")  # fmt: skip
        if self.hosts * self.per_host == 1:
            return (assumed,)
        times = (f"over the links of a host ({links} GB/s) they would take {sent / links / 1e6:.2g} ms, over a network "
                 f"of {8 * shares['network']:g} Gb/s per host {sent / self.network * 1e3:.2g} ms, if nothing hides them"
                 )  # fmt: skip
        return assumed, f"{collectives(text)}; {times}"


@cache
def cards() -> dict[str, Any]:
    """Return the facts of each card, and the table `assumed`, from configs/gpus.toml."""
    families = tomllib.loads((presets_dir() / "gpus.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"assumed": families.pop("assumed")}
    for family in families.values():
        found |= {card: family | facts for card, facts in family.pop("cards").items()}
    return found


def card_names() -> list[str]:
    """Return the names of all cards."""
    return [name for name in cards() if name != "assumed"]


def find_gpus(name: str) -> Gpus | None:
    """Return the cards that CARD, CARDxCOUNT or CARDxHOSTSxCOUNT names, None for other names and counts."""
    match = re.fullmatch(r"(.+?)(?:x(\d{1,4}))??(?:x(\d))?", name)
    if match is None or match[1] not in card_names():
        return None
    hosts, per_host = int(match[2] or 1), int(match[3] or 1)
    if not (1 <= per_host <= MAX_PER_HOST and hosts):
        return None
    return Gpus(match[1], hosts, per_host, cards()[match[1]], cards()["assumed"])


def card_of(device_kind: str) -> Gpus | None:
    """Return the card that JAX calls `device_kind`, None if configs/gpus.toml does not list it."""
    return next((find_gpus(name) for name in card_names() if cards()[name]["name"] == device_kind), None)


def target_config(gpus: Gpus) -> str:
    """Return XLA's description of a card, a text proto. Limits that all cards share are written out."""
    facts, (major, minor) = gpus.facts, gpus.facts["capability"]
    accelerated = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {facts["threads"]}
  shared_memory_per_block: 49152 shared_memory_per_core: {facts["shared_memory"]}
  shared_memory_per_block_optin: {facts["shared_memory"] - 1024}
  core_count: {facts["cores"]} fpus_per_core: {facts["lanes"]} clock_rate_ghz: {facts["clock"]}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {int(facts["bandwidth"] * 1e9)} device_memory_size: {facts["memory"]}
  l2_cache_size: {facts["l2_cache"]}
  cuda_compute_capability {{ major: {major} minor: {minor} {accelerated} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{facts["name"]}"
"""
