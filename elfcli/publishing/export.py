"""Exports a trained network as a folder for others: float32 weights, named by the reference's paths or the PyTorch
port's, all settings without paths of this machine, tokenizer, a local encoder, sampling presets, model card."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from elfcli.config.render import to_toml
from elfcli.config.schema import SECTIONS, Config, TrackingSettings
from elfcli.data.tokenizers import load_tokenizer
from elfcli.errors import InputError
from elfcli.hub_access import looks_like_a_path
from elfcli.outputs import folder_written_whole
from elfcli.publishing.card import model_card
from elfcli.runs.folder import CONFIG_FILE, checkpoint_steps
from elfcli.runs.secrets import holds_secret
from elfcli.weights.encoder import encoder_arrays, encoder_config
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.files import read_json
from elfcli.weights.names import WEIGHTS_FILE, is_exported
from elfcli.weights.open import open_source
from elfcli.weights.reference import elf_to_reference, t5_from_reference
from elfcli.weights.source import EXPORTED_ENCODER, Source
from elfcli.weights.t5 import ENCODER_CLASSES, save_encoder, t5_to_huggingface
from elfcli.weights.torch_port import elf_to_torch

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.txt", "vocab.json",
                   "merges.txt")  # fmt: skip
ALLOWED = (WEIGHTS_FILE, CONFIG_FILE, "sampling.yaml", "README.md", "encoder/config.json", f"encoder/{WEIGHTS_FILE}",
           f"checkpoints/*/{WEIGHTS_FILE}", *(f"tokenizer/{name}" for name in TOKENIZER_FILES))  # fmt: skip
"""All files of an exported folder. Nothing else is ever uploaded."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export. name: the model's name in the card (None: the folder's). steps: further checkpoints."""

    name: str | None = None
    torch_names: bool = False
    license: str = "mit"
    steps: tuple[int, ...] | Literal["all"] = ()
    overwrite: bool = False


def export(source: Source, config: Config, folder: Path, options: ExportOptions = ExportOptions()) -> Path:
    """Write the folder, whole or not at all, and return it. Raise InputError if it exists (options.overwrite replaces a
    folder that was exported before), or if a text of the export contains what looks like a secret."""
    check_export_folder(folder, options.overwrite)
    try:
        with folder_written_whole(folder) as new:
            write_files(source, config, new, options, options.name or folder.name)
            refuse_secrets(new)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return folder


def check_export_folder(folder: Path, overwrite: bool) -> None:
    """Raise InputError if the folder exists and may not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not is_exported(folder):
        raise InputError(f"{folder} exists and is not an exported model, so it is not replaced; choose another folder")
    if not overwrite:
        raise InputError(f"{folder} exists; choose another folder, or pass --overwrite")


def write_files(source: Source, config: Config, folder: Path, options: ExportOptions, name: str) -> None:
    """Write all files of an export into an empty folder."""
    own_encoder = write_encoder(config, folder / EXPORTED_ENCODER)
    shared = portable_config(config, own_encoder)
    write_weights(source, folder / WEIGHTS_FILE, options.torch_names)
    saved = checkpoint_steps(source.folder) if source.folder is not None else []
    for step in saved if options.steps == "all" else options.steps:
        other = source if step == source.step else open_source(str(source.folder), ema=source.ema, step=step)
        write_weights(other, folder / "checkpoints" / str(step) / WEIGHTS_FILE, options.torch_names)
    write_tokenizer(source, config, folder / "tokenizer")
    names = {"self_cond_scales": "self_cond_cfg_scales"}  # the reference's
    presets = [{names.get(name, name): value for name, value in one.model_dump(mode="json", exclude_none=True).items()}
               for one in config.sampling]  # fmt: skip
    (folder / CONFIG_FILE).write_text(to_toml(shared), encoding="utf-8")
    (folder / "sampling.yaml").write_text(yaml.safe_dump(presets, sort_keys=False), encoding="utf-8")
    (folder / "README.md").write_text(model_card(source, shared, name, options.license), encoding="utf-8")


def write_weights(source: Source, path: Path, torch_names: bool = False) -> None:
    """Write the weights as float32 safetensors. Equal weights give equal bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    flat = elf_to_torch(source.params) if torch_names else elf_to_reference(source.params)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One metadata key, because safetensors writes several in an order that changes between processes.
    note: dict = {"step": source.step, "weights": "ema" if source.ema else "raw"}
    if source.shape.text_position is not None:
        note["text_position"] = source.shape.text_position
    arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in sorted(flat.items())}
    save_file(arrays, path, {"elf": json.dumps(note)})


def write_tokenizer(source: Source, config: Config, folder: Path) -> None:
    """Write the tokenizer's files, without paths of this machine."""
    name = source.tokenizer or config.data.tokenizer_name or config.encoder.encoder_model_name
    if Path(name).is_dir():
        shutil.copytree(name, folder, ignore=lambda _, names: set(names).difference(TOKENIZER_FILES))
    else:
        load_tokenizer(name).save_pretrained(str(folder))
        for path in folder.iterdir():
            if path.name not in TOKENIZER_FILES:
                path.unlink() if path.is_file() else shutil.rmtree(path)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        kept = {k: v for k, v in read_json(settings).items() if not (isinstance(v, str) and Path(v).is_absolute())}
        settings.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_encoder(config: Config, folder: Path) -> bool:
    """Write the encoder if it is a local folder or pickle, and return whether it was written."""
    name, pickle = config.encoder.encoder_model_name, config.encoder.encoder_checkpoint
    if name == "embedding" or not (pickle or Path(name).expanduser().is_dir()):
        return False
    content = {k: v for k, v in encoder_config(name)[1].items() if k != "_name_or_path"}
    if content["model_type"] in ENCODER_CLASSES:
        content["architectures"] = [ENCODER_CLASSES[content["model_type"]]]
    arrays = t5_to_huggingface(t5_from_reference(read_encoder_pickle(pickle))) if pickle else encoder_arrays(name)
    save_encoder(folder, content, arrays)
    return True


def portable_config(config: Config, own_encoder: bool) -> Config:
    """Return the settings without the tracking section, and with local paths reduced to names."""
    sections: dict = {"tracking": TrackingSettings()}
    for section in SECTIONS.keys() - sections.keys():
        part = getattr(config, section)
        local = {k: Path(v).name for k, v in part if isinstance(v, str) and looks_like_a_path(v)}
        sections[section] = part.model_copy(update=local)
    if own_encoder:
        update = {"encoder_model_name": EXPORTED_ENCODER, "encoder_checkpoint": None}
        sections["encoder"] = sections["encoder"].model_copy(update=update)
    sections["training"] = sections["training"].model_copy(update={"output_dir": None, "resume": None})
    sections["evaluation"] = sections["evaluation"].model_copy(update={"sampling_configs_path": None})
    return config.model_copy(update=sections)


def refuse_secrets(folder: Path) -> None:
    """Raise InputError if a text of the folder contains a token or a secret of the environment."""
    for name in (CONFIG_FILE, "README.md", "sampling.yaml", "tokenizer/tokenizer_config.json", "encoder/config.json"):
        path = folder / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, line in enumerate(lines, 1):
            if holds_secret(line):
                setting = line.partition("=")[0].strip() if "=" in line else f"line {number}"
                raise InputError(f"{name}: {setting} contains what looks like a secret, so nothing was written or "
                                 "sent; remove it from this file or from the run's config.toml")  # fmt: skip
