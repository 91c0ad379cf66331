"""The encoder of a run on custom data: the one that belongs to the vocabulary, otherwise token vectors."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from elfcli.config.resolve import Resolved
from elfcli.data.folder import Examples
from elfcli.data.tokenizers import load_tokenizer
from elfcli.errors import InputError
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.recipe.choose import FROM_DATA, is_set, with_defaults
from elfcli.recipe.vectors import make_vectors, vectors_folder
from elfcli.runs.folder import ENCODER_FOLDER
from elfcli.ui.progress import say
from elfcli.weights.encoder import encoder_config
from elfcli.weights.files import weight_files

TABLE_SETTINGS = ("embedding_dim", "embedding_seed", "tokenizer_name")
"""Setting one of these asks for the random table, or for a vocabulary that the data does not have."""


def with_encoder(resolved: Resolved, examples: Examples, may_write: bool) -> Resolved:
    """Choose the encoder that the data's tokenizer belongs to, otherwise token vectors made from the data.

    may_write: compute the vectors and write their folder; otherwise only name it. A setting of the random table keeps
    the random table.
    """
    names = ("encoder_model_name", "encoder_checkpoint")
    if is_set(resolved, *names) or resolved.config.training.init_from is not None:
        return resolved
    name, why = encoder_of_vocabulary(examples), "its vocabulary is that of the data"
    if name is None:
        trained = Path(examples.path) / ENCODER_FOLDER
        if (trained / "config.json").is_file():
            say(f"{trained}: not used; to train on it, pass --set encoder_model_name={trained}")
        name, why = "embedding", "a table of random vectors"
        folder = vectors_folder(examples)
        exists = (folder / "config.json").is_file()
        if not is_set(resolved, *TABLE_SETTINGS) and (exists or os.access(Path(examples.path).expanduser(), os.W_OK)):
            name = str(make_vectors(examples) if may_write else folder)
            why = "token vectors from co-occurrence in the data"
    say(f"encoder: {name} ({why})")
    return with_defaults(resolved, FROM_DATA, encoder_model_name=name)


def encoder_of_vocabulary(examples: Examples) -> str | None:
    """Return the encoder whose tokenizer the data has, if its weights are available; None otherwise."""
    source = (examples.metadata or {}).get("tokenizer_source")
    if not source or source == "trained" or not holds_encoder(source):
        return None
    return str(Path(source).absolute()) if Path(source).is_dir() else source


def holds_encoder(name: str) -> bool:
    """Return whether a folder or Hub name holds an encoder that can be read and that attends in both directions."""
    with suppress(InputError):
        shape, _ = encoder_config(name)
        weight_files(name, "encoder")
        return not isinstance(shape, Gpt2Shape)  # its latents do not see what follows: only if it is asked for
    return False


def require_same_vocabulary(name: str, tokenizer: Any, source: str | None) -> None:
    """Raise InputError if the encoder brings a tokenizer whose tokens differ from the data's.

    source: where the data's tokenizer came from.
    """
    if name in ("embedding", source):
        return
    try:
        theirs = load_tokenizer(name).get_vocab()
    except InputError:  # it brings none
        return
    ours = tokenizer.get_vocab()
    wrong = next((token for token, number in sorted(ours.items()) if theirs.get(token) != number), None)
    if wrong is not None:
        raise InputError(f"encoder_model_name {name}: its vocabulary is not that of the data (token {wrong!r} has "
                         f"id {ours[wrong]} in the data, {theirs.get(wrong, 'none')} in the encoder): use `elf "
                         f"tokenize --tokenizer {name}`, or set encoder_model_name=embedding")  # fmt: skip
