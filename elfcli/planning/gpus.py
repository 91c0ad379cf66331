"""NVIDIA cards by the names of `elf plan`, such as h100x8, with what XLA needs to compile for one that is not there."""

import re
from dataclasses import dataclass

from elfcli.config.cards import Card, read_cards
from elfcli.planning.gpu_calls import collectives
from elfcli.planning.hlo import Rates

MAX_PER_HOST = 8


@dataclass(frozen=True)
class Gpus:
    """Equal cards in one or several hosts."""

    card: Card
    hosts: int
    per_host: int

    @property
    def topology(self) -> str:
        """Return XLA's name of the topology: slices, hosts of a slice, cards of a host."""
        return f"1x{self.hosts}x{self.per_host}"

    @property
    def memory(self) -> int:
        """Return the bytes of a card that a program may use."""
        return int(read_cards()[1].usable * self.card.memory)

    @property
    def links(self) -> float:
        """Return the bytes per second between the cards: of a host's links, or of the network of several hosts."""
        return 1e9 * (self.card.links if self.hosts == 1 else read_cards()[1].network)

    def notes(self, text: str, sent: float) -> tuple[str, ...]:
        """Return notes for the report: what is assumed, and a program's collectives. sent: their bytes."""
        rates, shares, links = rates_of(self.card), read_cards()[1], self.card.links
        assumed = (f"assumed per card: {rates.flops / 1e12:.0f} TFLOP/s in bfloat16 products, "
                   f"{shares.attention * self.card.tflops:.0f} in attention, {rates.bytes / 1e12:.3g} TB/s "
                   f"({shares.arithmetic:.0%}, {shares.attention:.0%} and {shares.memory:.0%} of the peaks), "
                   f"{shares.usable:.0%} of the memory; compiled without a card, with untuned kernels")  # fmt: skip
        if self.hosts * self.per_host == 1:
            return (assumed,)
        times = (f"over the links of a host ({links} GB/s) they would take {sent / links / 1e6:.2g} ms, over a network "
                 f"of {8 * shares.network:g} Gb/s per host {sent / shares.network / 1e6:.2g} ms, if nothing hides them"
                 )  # fmt: skip
        return assumed, f"{collectives(text)}; {times}"


def card_names() -> list[str]:
    """Return the names of all cards."""
    return list(read_cards()[0])


def rates_of(card: Card) -> Rates:
    """Return the assumed rates of a card, shares of its peaks. Float32 products use TF32, at half the peak."""
    shares, peak = read_cards()[1], 1e12 * card.tflops
    products = shares.arithmetic * peak
    return Rates(products, shares.memory * card.bandwidth * 1e9, products / 2, shares.attention * peak)


def find_gpus(name: str) -> Gpus | None:
    """Return the cards that CARD, CARDxCOUNT or CARDxHOSTSxCOUNT names, None for other names and counts."""
    for known, card in read_cards()[0].items():
        if match := re.fullmatch(rf"{known}(?:x(\d{{1,4}}))??(?:x(\d))?", name):
            hosts, per_host = int(match[1] or 1), int(match[2] or 1)
            return Gpus(card, hosts, per_host) if 1 <= per_host <= MAX_PER_HOST and hosts else None
    return None


def target_config(card: Card) -> str:
    """Return XLA's description of a card, a text proto. Limits that all cards share are written out."""
    major, minor = card.capability
    accelerated = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {card.threads}
  shared_memory_per_block: 49152 shared_memory_per_core: {card.shared_memory}
  shared_memory_per_block_optin: {card.shared_memory - 1024}
  core_count: {card.cores} fpus_per_core: {card.lanes} clock_rate_ghz: {card.clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {int(card.bandwidth * 1e9)} device_memory_size: {card.memory} l2_cache_size: {card.l2_cache}
  cuda_compute_capability {{ major: {major} minor: {minor} {accelerated} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{card.name}"
"""
