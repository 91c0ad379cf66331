"""Facts of NVIDIA cards (configs/gpus.toml), and the rates that are assumed from them."""

import tomllib
from dataclasses import dataclass
from functools import cache

from elfcli.config.presets import presets_dir


@dataclass(frozen=True)
class Card:
    """A card. name: JAX's. capability: of its computations. clock: GHz. Sizes are in bytes.

    tflops: peak of bfloat16 products. bandwidth, links: GB/s of the memory, and to the other cards of a host.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    threads: int
    shared_memory: int
    l2_cache: int
    clock: float
    memory: int
    bandwidth: float
    tflops: float
    links: float


@dataclass(frozen=True)
class Assumed:
    """Shares of peaks that products, fused attention and simple kernels reach, and of the memory that is usable.

    network: GB/s of a host.
    """

    arithmetic: float
    attention: float
    memory: float
    network: float
    usable: float


@cache
def read_cards() -> tuple[dict[str, Card], Assumed]:
    """Return the cards of configs/gpus.toml by the names of `elf plan`, and what is assumed of all."""
    families = tomllib.loads((presets_dir() / "gpus.toml").read_text(encoding="utf-8"))
    assumed, found = Assumed(**families.pop("assumed")), dict[str, Card]()
    for family in families.values():
        found |= {name: Card(**(family | facts)) for name, facts in family.pop("cards").items()}
    return found, assumed


def card_of(device_kind: str) -> Card | None:
    """Return the card that JAX calls `device_kind`, None if configs/gpus.toml does not list it."""
    return next((card for card in read_cards()[0].values() if card.name == device_kind), None)
