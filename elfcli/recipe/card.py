"""What training costs on an NVIDIA card, roughly: what the recipe for custom data derives, without a measurement.

Per position: floating-point operations and bytes whose constants were fitted to plans (`elf plan --topology h100`) of
ELF-B, M and L, which they meet within 5% (time) and 12% (memory).
"""

from elfcli.config.cards import Card, read_cards
from elfcli.config.schema import Config

PRODUCTS = 8.2  # operations per position and weight of the blocks
ATTENTION = 18.0  # operations per position, other position, layer and channel
TRAFFIC, KEPT = 213.0, 40.0  # bytes per position, layer and channel: moved; in memory
STATE = 20.0  # bytes in memory per weight
PREFIX = 12  # positions before the text
DAY = 24 * 3600.0


def block_weights(config: Config) -> float:
    """Return about how many weights the blocks have."""
    return 12.0 * config.network.depth * config.network.hidden_size**2


def position_seconds(config: Config, card: Card) -> float:
    """Return the estimated seconds per position of a training step on one card."""
    shares, network = read_cards()[1], config.network
    size, head = network.depth * network.hidden_size, network.hidden_size // network.num_heads
    padded = -(-head // 8) * 8 / head
    products = PRODUCTS * block_weights(config) / (shares.arithmetic * card.tflops * 1e12)
    attention = ATTENTION * size * padded * (config.data.max_length + PREFIX) / (shares.attention * card.tflops * 1e12)
    return products + attention + TRAFFIC * size / (shares.memory * card.bandwidth * 1e9)


def most_positions(config: Config, card: Card, devices: int, steps: int) -> int:
    """Return the largest batch in positions with which `steps` steps on these cards take a day."""
    return int(devices * DAY / steps / position_seconds(config, card))


def kept_bytes(config: Config, examples: int) -> float:
    """Return the estimated bytes that the backward pass of these examples needs on one card."""
    return KEPT * examples * (config.data.max_length + PREFIX) * config.network.depth * config.network.hidden_size


def derived_report(config: Config, card: Card, devices: int) -> str:
    """Return a line on the estimated time and memory of a step."""
    examples = config.global_batch // devices
    positions = examples * (config.data.max_length + PREFIX)
    seconds = config.optimization.grad_accum_steps * positions * position_seconds(config, card)
    memory = kept_bytes(config, examples) + STATE * block_weights(config)
    usable = read_cards()[1].usable * card.memory / 2**30
    return (f"derived from the data sheet of {card.name} and the compiler's plans, not measured: about "
            f"{60 / seconds:,.0f} steps a minute and {memory / 2**30:.1f} of {usable:.0f} GiB")  # fmt: skip
