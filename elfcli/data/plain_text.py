"""Encodes text as plain characters, and finds what of a text its tokens lose.

A tokenizer reads `</s>` in a text as the end token. That is wrong for data, because a model would learn to stop there.
`plain_encoder` returns an encoder that knows no special tokens.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from elfcli.data.tokenizers import decoded
from elfcli.errors import InputError
from elfcli.ui.progress import say

MAX_UNKNOWN = 0.05
"""Share of unknown tokens above which texts are refused."""
SHOWN = 10
"""Lost characters that are named."""
Encoder = Callable[[Sequence[str]], list[list[int]]]


@lru_cache(maxsize=4)
def plain_encoder(tokenizer: Any) -> Encoder:
    """Return a function from texts to token ids that never yields special tokens; all other ids are the tokenizer's."""

    def as_called(texts: Sequence[str]) -> list[list[int]]:
        settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return tokenizer(list(texts), split_special_tokens=True, **settings)["input_ids"] if texts else []

    if not tokenizer.is_fast:  # SentencePiece itself matches no control token in a text
        return as_called
    from tokenizers import Tokenizer

    try:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception:  # a part that is written in Python cannot be copied
        return as_called
    backend = Tokenizer.from_str(json.dumps(without_special_pieces(state)))
    backend.encode_special_tokens = True
    return lambda texts: [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def without_special_pieces(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a `tokenizers.Tokenizer` whose special pieces have names that no text holds.

    A Unigram model would otherwise match `</s>` even if the tokenizer splits special tokens.
    """
    model = state["model"]
    hidden = {token["content"]: f"\0{token['content']}\0 " for token in state["added_tokens"] if token["special"]}
    hidden.pop(model.get("unk_token"), None)  # these models look their unknown token up by name
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not hidden.keys() & {*pair, "".join(pair)}]
    tokens = [token | {"content": hidden.get(token["content"], token["content"])} for token in state["added_tokens"]]
    return state | {"added_tokens": tokens, "post_processor": None, "truncation": None, "padding": None}


@dataclass
class Losses:
    """What the tokens of some texts lose. unknown: of `tokens`. lost: counts of characters, of `characters`. checked:
    texts that were compared with what their tokens decode to. changed: those that differ, and `spaced` of them only in
    white space."""

    tokens: int = 0
    unknown: int = 0
    characters: int = 0
    checked: int = 0
    changed: int = 0
    spaced: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: "Losses") -> "Losses":
        for name in ("tokens", "unknown", "characters", "checked", "changed", "spaced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lost.update(other.lost)
        return self

    @property
    def share(self) -> float:
        """Return the share of unknown tokens, or of lost characters if it is larger: a token may stand for many."""
        return max(self.unknown / max(self.tokens, 1), self.lost.total() / max(self.characters, 1))

    def record(self) -> dict[str, Any]:
        """Return the losses as `elf_data.json` holds them."""
        lost = dict(sorted(self.lost.items(), key=lambda one: (-one[1], one[0]))[:SHOWN])
        return {"unknown_tokens": self.unknown, "lost": lost, "checked": self.checked, "changed": self.changed,
                "changed_spaces": self.spaced}  # fmt: skip

    def named(self) -> str:
        """Return the most frequent lost characters, or words, with their counts."""
        ordered = sorted(self.lost.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]
        return ", ".join(f"{text!r} ({count:,})" for text, count in ordered)


@dataclass
class LossFinder:
    """Finds the losses of texts that `tokenizer` encodes. readable: characters, or words, by whether it reads them."""

    tokenizer: Any
    readable: dict[str, bool] = field(default_factory=dict)

    def losses(self, texts: Sequence[str], rows: Sequence[Sequence[int]], checked: int) -> Losses:
        """Return the losses of texts with these tokens; the first `checked` of them are decoded and compared."""
        found = Losses(tokens=sum(map(len, rows)), characters=sum(map(len, texts)))
        if (unknown := self.tokenizer.unk_token_id) is not None:
            for text, row in zip(texts, rows, strict=True):
                if count := row.count(unknown):  # type: ignore[attr-defined]
                    found.unknown += count
                    found.lost.update(self.lost(text))
        found.checked = min(checked, len(texts))
        for text, back in zip(texts, decoded(self.tokenizer, rows[:checked], clean_up=False), strict=False):
            found.changed += text != back
            found.spaced += text != back and text.split() == back.split()
        return found

    def lost(self, text: str) -> dict[str, int]:
        """Return the characters of a text that are unknown, with their counts; words, if letters are unknown too."""
        if not self.reads("e"):
            return {word: count for word, count in Counter(text.split()).items() if not self.reads(word)}
        return {character: text.count(character) for character in set(text) if not self.reads(character)}

    def reads(self, text: str) -> bool:
        """Return whether the tokens of a character or word have no unknown one."""
        if text not in self.readable:
            (row,) = plain_encoder(self.tokenizer)([text])
            self.readable[text] = self.tokenizer.unk_token_id not in row
        return self.readable[text]


def check_unknown(losses: Losses, what: str, fix: str, allowed: bool, report: bool = True) -> None:
    """Raise InputError if more than MAX_UNKNOWN is unknown and not allowed; else report what is. what: names the texts.
    fix: what to do about it."""
    if not losses.unknown:
        return
    lost = losses.lost.total()
    line = (f"{what}: the tokenizer does not know {losses.unknown:,} of {losses.tokens:,} tokens "
            f"({losses.unknown / losses.tokens:.2%})")  # fmt: skip
    if lost:
        line += f" and loses {lost:,} of {losses.characters:,} characters: {losses.named()}"
    if losses.share > MAX_UNKNOWN and not allowed:
        raise InputError(f"{line}; {fix}, or pass --allow-unknown")
    if report:
        say(f"warning: {line}")


@lru_cache(maxsize=4)
def keeps_whitespace(tokenizer: Any) -> bool:
    """Return whether white space comes back from its tokens."""
    spaces = " a\n\t\n  a "
    return decoded(tokenizer, plain_encoder(tokenizer)([spaces]), clean_up=False)[0].replace("a", "") == spaces.replace(
        "a", ""
    )
