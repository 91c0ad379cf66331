"""A model in memory: weights, encoder, tokenizer and settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elfcli.config.schema import Config
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.models.build import arithmetic, elf_shape
from elfcli.models.elf import ElfShape
from elfcli.models.encoder import Encoder
from elfcli.parallel.agree import same_version
from elfcli.parallel.backend import prepare
from elfcli.parallel.mesh import on_devices
from elfcli.weights.encoder import load_encoder
from elfcli.weights.open import open_source
from elfcli.weights.reference import check_tree
from elfcli.weights.settings import check_latents, check_vocabulary, config_of
from elfcli.weights.source import Source


@dataclass(frozen=True)
class LoadedModel:
    """A trained network with the encoder, tokenizer and settings that sampling needs."""

    config: Config
    shape: ElfShape
    params: dict
    encoder: Encoder
    tokenizer: Any
    source: Source

    @property
    def name(self) -> str:
        """Return the name of the checkpoint."""
        return self.source.name

    @property
    def step(self) -> int:
        """Return the training step of the checkpoint."""
        return self.source.step

    @property
    def folder(self) -> Path:
        """Return the default folder of results: the run's own, or `results/NAME` for other weights."""
        if self.source.kind == "run" and self.source.folder is not None:
            return self.source.folder
        return Path("results") / self.name.rstrip("/").replace("@", "/").split("/")[-1]


def model_in_training(
    config: Config, shape: ElfShape, encoder: Encoder, tokenizer: Any, run: Path | None
) -> LoadedModel:
    """Return the model of a run without weights, which `with_weights` adds for each evaluation."""
    source = Source("run", str(run), str(run), {}, shape, 0, True, folder=run)
    return LoadedModel(config, shape, {}, encoder, tokenizer, source)


def with_weights(model: LoadedModel, ema: dict, step: int) -> LoadedModel:
    """Return the model with the EMA weights of a step."""
    return replace(model, params=on_devices(ema), source=replace(model.source, step=step))


def load_model(checkpoint: str | Path, *, ema: bool = True, step: int | None = None, **settings: Any) -> LoadedModel:
    """Return the model of any source that `open_source` takes, at its newest checkpoint or that of `step`.

    settings: task, model, files and sets, as of `config_of`. Raises InputError if weights, settings, tokenizer and
    encoder do not fit each other.
    """
    prepare()
    source = same_version(lambda at: open_source(checkpoint, ema=ema, step=at), lambda source: source.step, asked=step)
    config = config_of(source, **settings)
    name = source.tokenizer or config.data.tokenizer_name or config.encoder.encoder_model_name
    tokenizer = load_tokenizer(name)
    vocabulary = vocab_size(tokenizer)
    check_vocabulary(source, name, vocabulary)
    encoder = load_encoder(config.encoder, vocabulary, *arithmetic(config))
    check_latents(source, config.encoder.encoder_model_name, encoder.dim)
    shape = replace(elf_shape(config, encoder.dim, vocabulary), unroll=False)  # forward passes gain nothing from it
    check_tree(source.params, shape)
    encoder = replace(encoder, params=on_devices(encoder.params))
    return LoadedModel(config, shape, on_devices(source.params), encoder, tokenizer, source)
