"""Score report shared by all scoring commands: signature, provenance, and statistics of the texts."""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import xxhash

from elfcli.scoring import columns
from elfcli.scoring.protocol import departing
from elfcli.scoring.score import Texts
from elfcli.scoring.text_quality import distinct_share, quality_shares
from elfcli.ui.table import aligned

NGRAM_SIZES, SHARES = (1, 2, 4), ("empty", "degenerate", "duplicate", "memorised")
MIN_OF_REAL, MIN_NATS = 0.8, 4.0
"""Perplexity is meaningless below this share of the real text's entropy, or without real text below these nats."""
COMMON = ("metric", "value", "interval", "num_samples", "signature", "made_by", "details", "real")


def reports(scores: list[dict], texts: Texts) -> list[dict]:
    """Return the scores, each with `signature`, `made_by` and `details`, which take up its further figures."""
    origin, count = texts.origin, len(texts.generated)
    statistics: dict[str, Any] = dict(counted(tuple(texts.generated)))
    memorised = None if texts.seen is None else sum(text in texts.seen for text in texts.generated) / count
    real = counted(tuple(texts.real)) if texts.real else None
    clean_up = {None: "unknown", True: "yes", False: "no"}[origin.clean_up]
    references = None if texts.references is None else json.dumps(list(texts.references)).encode()
    data = "none" if references is None else xxhash.xxh3_64_hexdigest(references)
    of_texts = f"clean_up:{clean_up}|split:{origin.split or 'unknown'}|data:{data}|samples:{count}"

    def report(score: dict) -> dict:
        signature = score.get("signature") or ""
        if origin.clean_up is False:
            signature = departing(signature, "clean_up")
        figures = {name: value for name, value in score.items() if name not in COMMON}
        about_real = {"memorised": memorised, "real": real and real | (score.get("real") or {})}
        ordered = {"metric": score["metric"], "value": score["value"], "interval": None} | score
        return ordered | {
            "signature": "|".join(filter(None, (signature, of_texts))),
            "made_by": origin.made_by or "unknown",
            "details": statistics | figures | about_real,
        }

    return [report(score) for score in scores]


@lru_cache(maxsize=4)
def counted(texts: tuple[str, ...]) -> dict[str, float | None]:
    """Return the shares of faulty texts, words per text, and the shares of distinct phrases within and across texts."""
    shares: dict[str, float | None] = dict(quality_shares(list(texts)))
    del shares["memorised"]
    distinct = {size: distinct_share(texts, size) for size in NGRAM_SIZES}
    shares |= {f"distinct_{size}": within for size, (within, _) in distinct.items()}
    return shares | {f"distinct_{size}_across": across for size, (_, across) in distinct.items()}


def differences(signatures: Sequence[str]) -> list[str]:
    """Return a line such as `version: 2.5.1, 2.6.0` for each part in which signatures differ, except the protocol: it
    sums up other parts, and earlier versions named it differently or not at all."""
    parts = [dict(part.partition(":")[::2] for part in signature.split("|")) for signature in signatures]
    names = [name for name in dict.fromkeys(name for part in parts for name in part) if name != "protocol"]
    values = {name: list(dict.fromkeys(part.get(name) or "not said" for part in parts)) for name in names}
    return [f"{name}: {', '.join(several)}" for name, several in values.items() if len(several) > 1]


def low_entropy(score: dict) -> str | None:
    """Return a warning if the texts repeat so few tokens that their perplexity is meaningless, otherwise None. The
    entropy of short texts is bounded by the logarithm of their length, which counts if it is below 4 nats."""
    entropy, real = score.get("entropy"), (score.get("real") or {}).get("entropy")
    if entropy is None:
        return None
    bound = math.log(max(score["num_tokens"] / max(score["num_samples"], 1), 2))
    least = MIN_OF_REAL * real if real is not None else min(MIN_NATS, MIN_OF_REAL * bound)
    if entropy >= least:
        return None
    expected = f"that of the real text is {real:.2f}" if real is not None else f"expected {least:.2f} or more"
    return f"warning: the entropy is {entropy:.2f}, {expected}: texts this monotonous make the perplexity meaningless"


def table(rows: Sequence[tuple[str, list[dict]]]) -> str:
    """Return two tables, of the scores and of the texts: a line per (name, scores), and one for the real text."""
    figures = [(metric, name) for metric in (score["metric"] for score in rows[0][1]) for name in columns(metric)]
    above = [["", *(columns(metric)[name] for metric, name in figures), "samples", "calls"]]
    below = [["", "words", "empty", "degenerate", "duplicate", "in train", "distinct-1/2/4", "across"]]
    for name, scores in rows:
        by_metric, made_by = {score["metric"]: score for score in scores}, scores[0].get("made_by")
        calls = str(made_by["network_calls"]) if isinstance(made_by, dict) else "-"
        cells = [figure(by_metric[metric], name) for metric, name in figures]
        above.append([name, *cells, f"{scores[0]['num_samples']:,}", calls])
        below.append([name, *text_cells(scores[0].get("details") or {})])
    real: dict = {}
    for score in rows[0][1]:
        real |= (score.get("details") or {}).get("real") or {}
    if real:
        below.append(["real text", *text_cells(real)])
    if "ppl" in real:
        cells = [f"{real[name]:,.2f}" if name in real else "-" for _, name in figures]
        above.append(["real text", *cells, f"{real['num_samples']:,}", "-"])
    numbers = range(len(figures) + 1, len(figures) + 3)
    return "\n".join([*aligned(above, numbers=numbers), "", *aligned(below, numbers=range(1, 6)), ""])


def figure(score: dict, name: str) -> str:
    """Return a figure of a score with its spread and interval, such as `26.41 [25.90, 26.93]`."""
    main = name in (score["metric"], "rougeL")
    value = score["value"] if main else score.get(name)
    within = score.get("interval") if main else score.get("intervals", {}).get(name)
    if value is None:
        return f"- ({score['note']})" if score.get("note") else "-"
    spread = f" +- {score['spread']:,.2f}" if main and "spread" in score else ""
    return f"{value:,.2f}{spread}" + (f" [{within[0]:,.2f}, {within[1]:,.2f}]" if within else "")


def text_cells(details: dict) -> list[str]:
    """Return the cells of words, shares and distinct phrases."""

    def cell(name: str, form: str) -> str:
        return "-" if details.get(name) is None else format(details[name], form)

    distinct = ["/".join(cell(f"distinct_{size}{end}", ".2f") for size in NGRAM_SIZES) for end in ("", "_across")]
    return [cell("words", ".1f"), *(cell(name, ".1%") for name in SHARES), *distinct]


def provenance(scores_of_rows: Sequence[list[dict]]) -> list[str]:
    """Return the lines below a table: the signature of each metric, and the provenance that all rows share."""
    lines = [f"{score['metric']}: {score['signature']}" for score in scores_of_rows[0] if score.get("signature")]
    records = [record for scores in scores_of_rows if isinstance(record := scores[0].get("made_by"), dict)]
    if not records or len(records) < len(scores_of_rows):
        return [*lines, "made by: unknown"]
    common = {name: value for name, value in records[0].items() if all(one.get(name) == value for one in records)}
    shown = [f"{name.replace('_', ' ')} {value}" for name, value in common.items() if value is not None]
    return [*lines, f"made by: {', '.join(shown)}"]
