"""Loads tokenizers, decodes token ids and finds special tokens."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from elfcli.errors import InputError, first_line, near_file
from elfcli.hub_access import from_hub, hub_reachable, looks_like_a_path
from elfcli.outputs import refuse_address

TOKENIZER_FOLDER = "tokenizer"
CLEANED = [(f" {mark}", mark.strip()) for mark in (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re")]
"""Replacements of the clean-up, in order."""


def existing_folder(name: str, what: str) -> Path:
    """Return the folder. Raises InputError, which suggests a similar name, if there is none."""
    refuse_address(name, f"{what} folder")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{what} {name} is a file, not a folder")
    raise InputError(f"No {what.lower()} folder {name}{near_file(folder)}")


def load_tokenizer(name_or_folder: str | Path) -> Any:
    """Return a Hugging Face tokenizer from a folder or by Hub name (from the cache if possible)."""
    from transformers import AutoTokenizer

    name = str(name_or_folder)
    if looks_like_a_path(name):
        folder = existing_folder(name, "Tokenizer")
        try:
            return AutoTokenizer.from_pretrained(str(folder))
        except Exception as error:
            raise InputError(f"{folder} does not hold a tokenizer that can be loaded: {first_line(error)}") from error
    from huggingface_hub import snapshot_download

    for where in (lambda: name, lambda: snapshot_download(name, local_files_only=True)):
        with suppress(Exception):
            cached = AutoTokenizer.from_pretrained(where(), local_files_only=True)
            if len(cached) > len(cached.all_special_tokens):  # else only a config is in the cache
                return cached
    if not hub_reachable():
        why = "is neither a folder nor in the cache, and the Hugging Face Hub cannot be reached"
        raise InputError(f"The tokenizer {name} {why}: pass --tokenizer DIR or --train-tokenizer SIZE")
    with from_hub(f"The tokenizer {name}"):
        return AutoTokenizer.from_pretrained(name)


def decoded(tokenizer: Any, rows: Sequence[Sequence[int]], clean_up: bool) -> list[str]:
    """Return the texts of token rows, without special tokens.

    clean_up: apply the clean-up of transformers before version 5; else follow the tokenizer's own setting.
    """
    if not clean_up:
        return tokenizer.batch_decode(rows, skip_special_tokens=True)
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for apart, joined in CLEANED:
        texts = [text.replace(apart, joined) for text in texts]
    return texts


def vocab_size(tokenizer: Any) -> int:
    """Return the number of token ids, including added tokens."""
    return len(tokenizer)


def pad_id(tokenizer: Any) -> int:
    """Return the id of the padding token, or of the end token if there is none. Raises InputError without both."""
    return eos_id(tokenizer) if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def begins_with_eos(tokenizer: Any) -> bool:
    """Return whether texts may begin with the end token, because it is the begin token, too."""
    return tokenizer.bos_token_id is not None and tokenizer.bos_token_id == tokenizer.eos_token_id


def eos_id(tokenizer: Any) -> int:
    """Return the id of the end token. Raises InputError if there is none."""
    if tokenizer.eos_token_id is None:
        raise InputError(f"The tokenizer {tokenizer.name_or_path} has no end token: choose another or set one in it")
    return tokenizer.eos_token_id
