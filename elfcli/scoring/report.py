"""The report of every command that scores: what a score is, what it was made by, and what else the texts show."""

import json
import math
from collections.abc import Sequence
from functools import lru_cache

import xxhash

from elfcli.scoring import columns
from elfcli.scoring.protocol import departing
from elfcli.scoring.score import Texts
from elfcli.scoring.text_quality import distinct_share, quality_shares
from elfcli.ui.table import aligned

NGRAM_SIZES, SHARES = (1, 2, 4), ("empty", "degenerate", "duplicate", "memorised")
MIN_OF_REAL, MIN_NATS = 0.8, 4.0
"""Entropy below this share of the real text's, or without real text below these nats, makes perplexity worthless."""
COMMON = ("metric", "value", "interval", "num_samples", "signature", "made_by", "details", "real")


def reports(scores: list[dict], texts: Texts) -> list[dict]:
    """The scores, each with `signature`, `made_by` and `details`, its own further figures among these."""
    given, details = texts.origin, counted(tuple(texts.generated))
    seen = None if texts.seen is None else sum(text in texts.seen for text in texts.generated) / len(texts.generated)
    real = counted(tuple(texts.real)) if texts.real else None
    clean_up = {None: "unknown", True: "yes", False: "no"}[given.clean_up]
    data = "none" if texts.references is None else hash_of(texts.references)
    of_texts = f"clean_up:{clean_up}|split:{given.split or 'unknown'}|data:{data}|samples:{len(texts.generated)}"
    signatures = [score.get("signature") or "" for score in scores]
    if given.clean_up is False:  # where it is not known, `clean_up:unknown` says so
        signatures = [departing(signature, "clean_up") for signature in signatures]
    return [
        {"metric": score["metric"], "value": score["value"], "interval": None}
        | score
        | {
            "signature": "|".join(filter(None, (signature, of_texts))),
            "made_by": given.made_by or "unknown",
            "details": details
            | {name: found for name, found in score.items() if name not in COMMON}
            | {"memorised": seen, "real": real and real | (score.get("real") or {})},
        }
        for score, signature in zip(scores, signatures, strict=True)
    ]


def hash_of(texts: Sequence[str]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(list(texts)).encode())


@lru_cache(maxsize=4)
def counted(texts: tuple[str, ...]) -> dict[str, float | None]:
    """Shares of texts that went wrong, words per text, and distinct phrases within and across texts."""
    found = {size: distinct_share(texts, size) for size in NGRAM_SIZES}
    return {name: share for name, share in quality_shares(list(texts)).items() if name != "memorised"} | {
        **{f"distinct_{size}": found[size][0] for size in NGRAM_SIZES},
        **{f"distinct_{size}_across": found[size][1] for size in NGRAM_SIZES},
    }


def differences(signatures: Sequence[str]) -> list[str]:
    """What does not agree among signatures, one line each: `version: 2.5.1, 2.6.0`.

    The protocol only sums up other parts, and earlier versions did not name it, or called every perplexity the paper's.
    So it is not compared, and their results stay comparable.
    """
    parts = [dict(part.partition(":")[::2] for part in signature.split("|")) for signature in signatures]
    names = [name for name in dict.fromkeys(name for part in parts for name in part) if name != "protocol"]
    values = {name: list(dict.fromkeys(part.get(name) or "not said" for part in parts)) for name in names}
    return [f"{name}: {', '.join(found)}" for name, found in values.items() if len(found) > 1]


def low_entropy(score: dict) -> str | None:
    """A warning where the texts repeat so few tokens that their perplexity means nothing; None where they do not.

    The entropy of short texts is bounded by the logarithm of their length, which counts where it lies below 4 nats.
    """
    entropy, real = score.get("entropy"), (score.get("real") or {}).get("entropy")
    if entropy is None:
        return None
    longest = math.log(max(score["num_tokens"] / max(score["num_samples"], 1), 2))
    least = MIN_OF_REAL * real if real is not None else min(MIN_NATS, MIN_OF_REAL * longest)
    if entropy >= least:
        return None
    beside = f"that of the real text is {real:.2f}" if real is not None else f"expected {least:.2f} or more"
    return f"warning: the entropy is {entropy:.2f}, {beside}: texts this monotonous make the perplexity meaningless"


# --- the table ----------------------------------------------------------------------------------------------------


def table(rows: Sequence[tuple[str, list[dict]]]) -> str:
    """Two tables with a line per (name, scores of the same texts) and one for the real text: scores, and the texts."""
    figures = [(metric, name) for metric in (score["metric"] for score in rows[0][1]) for name in columns(metric)]
    above = [["", *(columns(metric)[name] for metric, name in figures), "samples", "calls"]]
    below = [["", "words", "empty", "degenerate", "duplicate", "in train", "distinct-1/2/4", "across"]]
    for name, scores in rows:
        by_metric, made_by = {score["metric"]: score for score in scores}, scores[0].get("made_by")
        calls = str(made_by["network_calls"]) if isinstance(made_by, dict) else "-"
        shown = [figure(by_metric[metric], name) for metric, name in figures]
        above.append([name, *shown, f"{scores[0]['num_samples']:,}", calls])
        below.append([name, *text_cells(scores[0].get("details") or {})])
    real: dict = {}
    for score in rows[0][1]:
        real |= (score.get("details") or {}).get("real") or {}
    if real:
        below.append(["real text", *text_cells(real)])
    if "ppl" in real:
        shown = [f"{real[name]:,.2f}" if name in real else "-" for _, name in figures]
        above.append(["real text", *shown, f"{real['num_samples']:,}", "-"])
    numbers = range(len(figures) + 1, len(figures) + 3)
    return "\n".join([*aligned(above, numbers=numbers), "", *aligned(below, numbers=range(1, 6)), ""])


def figure(score: dict, name: str) -> str:
    """`26.41 [25.90, 26.93]`."""
    main = name in (score["metric"], "rougeL")
    value = score["value"] if main else score.get(name)
    within = score.get("interval") if main else score.get("intervals", {}).get(name)
    if value is None:
        return f"- ({score['note']})" if score.get("note") else "-"
    spread = f" +- {score['spread']:,.2f}" if main and "spread" in score else ""
    return f"{value:,.2f}{spread}" + (f" [{within[0]:,.2f}, {within[1]:,.2f}]" if within else "")


def text_cells(details: dict) -> list[str]:
    """Cells of words, shares and distinct phrases."""
    counts = [f"{100 * details[name]:.1f}%" if details.get(name) is not None else "-" for name in SHARES]
    words = f"{details['words']:.1f}" if "words" in details else "-"
    values = [[details.get(f"distinct_{size}{ending}") for size in NGRAM_SIZES] for ending in ("", "_across")]
    return [words, *counts, *("/".join("-" if x is None else f"{x:.2f}" for x in three) for three in values)]


def provenance(scores_of_rows: Sequence[list[dict]]) -> list[str]:
    """Lines below a table: the signature of each metric, and what made all rows."""
    lines = [f"{score['metric']}: {score['signature']}" for score in scores_of_rows[0] if score.get("signature")]
    made = [scores[0].get("made_by") for scores in scores_of_rows]
    known = [one for one in made if isinstance(one, dict)]
    if len(known) < len(made) or not known:
        return [*lines, "made by: unknown"]
    common = {name: value for name, value in known[0].items() if all(one.get(name) == value for one in known)}
    shown = [f"{name.replace('_', ' ')} {value}" for name, value in common.items() if value is not None]
    return [*lines, f"made by: {', '.join(shown)}"]
