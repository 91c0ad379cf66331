"""Trains small tokenizers: SentencePiece models that Hugging Face's T5 tokenizer class loads."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from elfcli.errors import ElfError, InputError

MAX_SENTENCES = 1_000_000
MAX_SENTENCE = 100_000  # maximum bytes of a document for training a tokenizer; the data keeps longer documents


KEEP_WHITESPACE = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,  # a decoder would remove it together with leading spaces
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["\t"],  # SentencePiece reserves this character for itself
    "required_chars": "\n" + "".join(map(chr, range(33, 127))),
}


def train_tokenizer(texts: Iterable[str], folder: Path, size: int | None, keep_whitespace: bool = False) -> None:
    """Write a tokenizer into an existing folder; deterministic: one thread, first documents. size: of the whole unigram
    vocabulary, with `<pad>` 0, `</s>` 1, `<unk>` 2, or InputError if the texts do not yield it; None: each word is a
    piece. keep_whitespace: texts keep spaces, tabs and line breaks.
    """
    import sentencepiece

    kind: dict[str, Any]
    if size is None:
        kind = {"model_type": "word", "use_all_vocab": True, "vocab_size": 2**20}
    else:
        kind = {"model_type": "unigram", "vocab_size": size, "character_coverage": 0.9999}
    if keep_whitespace:
        kind |= KEEP_WHITESPACE
    model = io.BytesIO()
    failures: list[BaseException] = []

    def watched() -> Iterator[str]:
        """Yield the texts, and store an exception, because SentencePiece replaces it with a RuntimeError."""
        try:
            yield from texts
        except (Exception, KeyboardInterrupt) as failure:
            failures.append(failure)
            raise

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=watched(), model_writer=model, num_threads=1, minloglevel=2,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
            input_sentence_size=MAX_SENTENCES, shuffle_input_sentence=False, max_sentence_length=MAX_SENTENCE,
            **kind,
        )  # fmt: skip
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        message, option = " ".join(str(error).split()), f"--train-tokenizer {size}"
        if most := re.search(r"set it to a value <= (\d+)", message):
            raise InputError(f"{option} is too large for this text: it yields at most {most[1]} pieces") from error
        if least := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message):
            raise InputError(f"{option} is too small for this text: it needs at least {least[1]} pieces") from error
        raise ElfError(f"Training a tokenizer of {size} pieces failed: {message}") from error
    if keep_whitespace:
        save_with_whitespace(model.getvalue(), folder)
        return
    (folder / "spiece.model").write_bytes(model.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "<pad>", "eos_token": "</s>",
                "unk_token": "<unk>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def save_with_whitespace(model: bytes, folder: Path) -> None:
    """Write the pieces of a SentencePiece model as a tokenizer of Hugging Face that leaves white space alone; the class
    of T5's tokenizer would normalize it."""
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=pieces.unk_id(), byte_fallback=False))
    spaces: dict[str, Any] = {"replacement": "\u2581", "prepend_scheme": "never", "split": False}
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(**spaces), decoders.Metaspace(**spaces)
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
    tokenizer.save_pretrained(str(folder))
