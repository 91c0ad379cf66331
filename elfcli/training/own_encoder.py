"""The encoder of a run on data of one's own: the one that fits the vocabulary and is at hand."""

import time
from contextlib import suppress
from pathlib import Path

from elfcli.config.resolve import Resolved
from elfcli.data.folder import Examples, load_tokenizer
from elfcli.errors import InputError
from elfcli.hub.huggingface import fetch, read_json, t5_shape, weight_files
from elfcli.training.recipe import DATA, chosen, is_set
from elfcli.ui.progress import say

ENCODER_FOLDER = "encoder"
"""Folder in the data folder that `elf encoder` writes."""
LEAST_MINUTES, SHARE = 20, 0.2
"""Length from which a run trains an encoder of its own first, and the share of the time that this takes."""


def with_encoder(resolved: Resolved, examples: Examples, trains: bool) -> Resolved:
    """The settings with the encoder that the data's tokenizer belongs to; else one trained on the data, where
    there is one or (`trains`) time for it; else the token table."""
    names = ("encoder_model_name", "encoder_checkpoint")
    if is_set(resolved, *names) or resolved.config.training.init_from is not None:
        return resolved
    name, why = found_encoder(examples)
    minutes, seed = resolved.config.training.minutes, resolved.config.training.seed
    if (
        trains
        and name == "embedding"
        and minutes is not None
        and minutes >= LEAST_MINUTES
        and Path(examples.path).is_dir()
    ):
        from elfcli.training.encoder import train_encoder

        say(f"no encoder for this vocabulary: training one in {SHARE * minutes:.3g} of the {minutes:g} minutes")
        folder = Path(examples.path).absolute() / ENCODER_FOLDER
        deadline = time.monotonic() + 60 * SHARE * minutes
        name, why = str(train_encoder(examples.path, folder, deadline=deadline, seed=seed)), "just trained"
    say(f"encoder: {name}, {why}")
    return chosen(resolved, DATA, encoder_model_name=name)


def found_encoder(examples: Examples) -> tuple[str, str]:
    """(encoder_model_name, why it was chosen)."""
    source = (examples.metadata or {}).get("tokenizer_source")
    if source and source != "trained" and holds_t5(source):
        name = str(Path(source).absolute()) if Path(source).is_dir() else source
        return name, "whose vocabulary the data has"
    own = Path(examples.path).absolute() / ENCODER_FOLDER
    if (own / "config.json").is_file():
        return str(own), "trained on the data"
    return "embedding", ("a table of random vectors; `elf encoder --data DIR` or `--minutes` of "
                         f"{LEAST_MINUTES} or more trains one")  # fmt: skip


def holds_t5(name: str) -> bool:
    """Whether a folder or Hub name holds a T5 encoder that can be read here."""
    with suppress(InputError):
        path = fetch(name, "config.json", "T5 encoder")
        t5_shape(read_json(path), path)
        weight_files(name, "T5 encoder")
        return True
    return False


def require_same_vocabulary(name: str, tokenizer, source: str | None) -> None:
    """InputError where the encoder brings a tokenizer whose tokens are not those of the data's. source: where the
    data's tokenizer came from."""
    if name in ("embedding", source):
        return
    try:
        theirs = load_tokenizer(name).get_vocab()
    except InputError:  # it brings none
        return
    ours = tokenizer.get_vocab()
    wrong = next((token for token, number in sorted(ours.items()) if theirs.get(token) != number), None)
    if wrong is not None:
        raise InputError(f"encoder_model_name {name}: its vocabulary is not that of the data (token {wrong!r} is "
                         f"{ours[wrong]} in the data, {theirs.get(wrong, 'none')} there): `elf tokenize --tokenizer "
                         f"{name}`, or set encoder_model_name=embedding")  # fmt: skip
