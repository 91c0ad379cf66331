"""The encoder of a run on data of one's own: the one that fits the vocabulary and is at hand."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from elfcli.config.resolve import Resolved
from elfcli.data.folder import Examples
from elfcli.data.tokenizers import load_tokenizer
from elfcli.errors import InputError
from elfcli.recipe.choose import FROM_DATA, is_set, with_defaults
from elfcli.runs.folder import ENCODER_FOLDER
from elfcli.ui.progress import say
from elfcli.weights.files import fetch, read_json, weight_files
from elfcli.weights.t5 import t5_shape

TABLE_SETTINGS = ("embedding_dim", "embedding_seed", "tokenizer_name")
"""Who sets one of these asks for the random table, or for a vocabulary that the data does not know."""


def with_encoder(resolved: Resolved, examples: Examples, make: Callable[[Examples], Path] | None) -> Resolved:
    """Return the settings with the encoder that the data's tokenizer belongs to, else with a table of token vectors.

    make(examples) writes the table and returns its folder. Without it, or if a setting asks for it, the table is
    random.
    """
    names = ("encoder_model_name", "encoder_checkpoint")
    if is_set(resolved, *names) or resolved.config.training.init_from is not None:
        return resolved
    name, why = found_encoder(examples)
    writable = os.access(Path(examples.path).expanduser(), os.W_OK)
    if name == "embedding" and make and writable and not is_set(resolved, *TABLE_SETTINGS):
        name, why = str(make(examples)), "token vectors from what occurs together in the data"
    say(f"encoder: {name}, {why}")
    return with_defaults(resolved, FROM_DATA, encoder_model_name=name)


def found_encoder(examples: Examples) -> tuple[str, str]:
    """(encoder_model_name, why it was chosen)."""
    source = (examples.metadata or {}).get("tokenizer_source")
    if source and source != "trained" and holds_t5(source):
        name = str(Path(source).absolute()) if Path(source).is_dir() else source
        return name, "whose vocabulary the data has"
    own = Path(examples.path) / ENCODER_FOLDER
    if (own / "config.json").is_file():
        say(f"{own}: not used; to train on it, pass --set encoder_model_name={own}")
    return "embedding", "a table of random vectors"


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
