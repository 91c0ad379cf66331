"""Weights and what is known about them, and the encoder that their folder contains."""

from dataclasses import dataclass
from pathlib import Path

from elfcli.config.resolve import load_config
from elfcli.config.schema import Config
from elfcli.models.elf import ElfShape
from elfcli.runs.folder import CONFIG_FILE, ENCODER_FOLDER, OWN_ENCODERS
from elfcli.weights.names import is_exported

EXPORTED_ENCODER = ENCODER_FOLDER  # value of encoder_model_name in an exported folder that contains its encoder


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


def with_own_encoder(config: Config, folder: Path | None) -> Config:
    """Return the settings with the folder's own encoder in place of the one that the folder was trained with."""
    name = config.encoder.encoder_model_name
    if folder is None or name != load_config(folder / CONFIG_FILE).encoder.encoder_model_name:
        return config
    own = folder / Path(name).name
    copied = own.name in OWN_ENCODERS and (own / "config.json").is_file()
    if copied or (name == EXPORTED_ENCODER and is_exported(folder)):
        encoder = config.encoder.model_copy(update={"encoder_model_name": str(own)})
        config = config.model_copy(update={"encoder": encoder})
    return config
