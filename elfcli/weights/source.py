"""Weights and what is known about them."""

from dataclasses import dataclass
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.models.elf import ElfShape


@dataclass(frozen=True)
class Source:
    """Weights (our tree of numpy arrays) and what is known about them. kind: `run`, `exported`, `reference` or `torch`.
    description: a line for the user. config_file: settings that come with the weights. tokenizer: folder or Hub name.
    folder: the run, or what was read."""

    kind: str
    name: str
    description: str
    params: dict
    shape: ElfShape
    step: int
    ema: bool
    from_hub: bool = False
    config: Config | None = None
    config_file: Path | None = None
    tokenizer: str | None = None
    folder: Path | None = None
