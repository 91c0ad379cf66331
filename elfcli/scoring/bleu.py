"""BLEU as the reference (github.com/lillian039/ELF) computes it: sacrebleu's, lowercase, effective order."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from elfcli.scoring.bootstrap import resampled
from elfcli.scoring.protocol import PAPER, SACREBLEU, check_protocol
from elfcli.scoring.score import Metric, Reference, Score, check_paired, several


@dataclass(frozen=True)
class BleuResult(Score, metric="bleu", value="bleu"):
    """BLEU from 0 to 100. signature: sacrebleu's own, which names every choice and its version, and the protocol."""

    bleu: float
    num_samples: int
    brevity_penalty: float
    signature: str


def corpus_bleu(generated: Sequence[str], references: Sequence[Reference], protocol: str = PAPER) -> BleuResult:
    """Return BLEU of all texts, each with one reference or several. Raises InputError for other numbers of texts, none,
    or another protocol."""
    check_paired(generated, references)
    metric = bleu_metric(check_protocol(protocol, METRIC.name, METRIC.protocols))
    # The steps of `corpus_score`: the interval needs its counts per text.
    counts = metric._extract_corpus_statistics(list(generated), streams_of(references))
    score = metric._aggregate_and_compute(counts)

    def formula(sums_RxK: np.ndarray) -> np.ndarray:
        return np.array([metric._compute_score_from_stats(sums.tolist()).score for sums in sums_RxK])

    signature = f"{metric.get_signature()}|protocol:{protocol}"
    return BleuResult(score.score, len(generated), score.bp, signature, resampled=resampled(counts, formula))


def streams_of(references: Sequence[Reference]) -> list[list[str | None]]:
    """Return references as sacrebleu takes them: the first of each text, the second of each, and so on."""
    return [list(stream) for stream in zip_longest(*map(several, references))]


def bleu_metric(protocol: str = PAPER) -> Any:
    """Return sacrebleu's metric with the choices of a protocol."""
    from sacrebleu.metrics import BLEU

    paper = protocol == PAPER
    return BLEU(lowercase=paper, effective_order=paper, force=True)  # force: no warning about tokenized-looking text


def exact_match(generated: Sequence[str], references: Sequence[str]) -> float:
    """Return the share (0 to 1) of texts equal to their reference up to surrounding white space."""
    check_paired(generated, references)
    return sum(a.strip() == b.strip() for a, b in zip(generated, references, strict=True)) / len(generated)


METRIC = Metric(
    "bleu",
    label="BLEU",
    description="sacrebleu corpus BLEU, lowercase, effective order",
    columns={"bleu": "BLEU"},
    compute=lambda texts, options: corpus_bleu(texts.generated, texts.references or (), options.protocol),
    needs="references",
    protocols=(PAPER, SACREBLEU),
)
