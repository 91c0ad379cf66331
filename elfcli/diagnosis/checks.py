"""Verdicts of `elf doctor`: from measured figures to rows that name the setting to change. No network, no file.

A row's name begins with its part of the training, e.g. `latents.std`. A cause stands before its effects in PARTS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log10
from statistics import fmean

import numpy as np

CHECK_ORDER = ("data", "latents", "decoder", "learning_rate", "steps", "ema", "denoise", "recovery", "sampling")
"""From the most fundamental on."""
UPDATE_LOW, UPDATE_GOOD, UPDATE_HIGH = 5e-4, 5e-3, 0.1
"""An optimiser step's change of a matrix relative to its initial size: too little, usual, too much."""


@dataclass(frozen=True)
class Check:
    """verdict: ok, warn or fail. advice: the setting to change; empty where nothing is wrong."""

    check: str
    value: float | str | None
    expected: str
    verdict: str
    advice: str = ""


def row(name: str, value: float | str, expected: str, verdict: str, advice: str) -> Check:
    """A figure that is not finite becomes None, as JSON has no number for it."""
    if not isinstance(value, str):
        value = float(f"{value:.4g}") if isfinite(value) else None  # type: ignore[assignment]
    return Check(name, value, expected, verdict, advice if verdict != "ok" else "")


def verdict_if_above(value: float, warn: float, fail: float) -> str:
    """The verdict of a figure that should be small; NaN fails."""
    return "ok" if value <= warn else "warn" if value <= fail else "fail"


def verdict_if_below(value: float, warn: float, fail: float) -> str:
    """The verdict of a figure that should be large; NaN fails."""
    return verdict_if_above(-value, -warn, -fail)


# --- data and latents ---------------------------------------------------------------------------------------------


def ids(largest: int, vocabulary: int) -> Check:
    advice = "tokenize the data with the model's tokenizer (elf tokenize --tokenizer RUN/tokenizer), or set " \
             "tokenizer_name to the data's and train again"  # fmt: skip
    return row("data.largest_id", largest, f"below {vocabulary}", "ok" if largest < vocabulary else "fail", advice)


def same_vocabulary(of_data: Mapping[str, int], of_model: Mapping[str, int]) -> Check:
    """Tokenizers as {piece: id}; value: the share of the data's pieces that have the same id in the model's."""
    share = sum(of_model.get(piece) == number for piece, number in of_data.items()) / max(len(of_data), 1)
    advice = "the data was made with another tokenizer: leave tokenizer_name out (the data's own is taken) and train " \
             "again, or tokenize the data with the model's"  # fmt: skip
    return row("data.same_tokenizer", share, "1", verdict_if_below(share, 1, 0.99), advice)


def encoder_vocabulary(tokenizer: int, encoder: int, name: str) -> Check:
    advice = f"{name} knows another vocabulary: tokenize with --tokenizer {name}, or set encoder_model_name=embedding"
    fits = tokenizer <= encoder <= 1.05 * tokenizer + 64  # T5's table is rounded up
    return row("data.vocabulary", tokenizer, f"about the encoder's {encoder}", "ok" if fits else "fail", advice)


def cut(side: str, lengths: np.ndarray, room: np.ndarray | int, setting: str, others: int) -> Check:
    """Share of rows longer than their room. others: tokens that `setting` has to hold beside these."""
    share = float(np.mean(lengths > room))
    wanted = others + -(-int(np.percentile(lengths, 99, method="inverted_cdf")) // 8) * 8
    more = ", and max_length with it" if setting == "max_input_length" else ""
    advice = f"train again with --set {setting}={wanted}{more}: what is cut off cannot be learned"
    return row(f"data.{side}_cut", share, "at most 0.01", verdict_if_above(share, 0.01, 0.1), advice)


def padding(lengths: np.ndarray, max_length: int) -> Check:
    share = 1 - float(np.mean(np.minimum(lengths, max_length))) / max_length
    wanted = -(-int(lengths.max()) // 8) * 8
    advice = f"most positions are padding: --set max_length={wanted}, or elf tokenize --pack for free text"
    return row("data.padding", share, "at most 0.75", verdict_if_above(share, 0.75, 1), advice)


def latents(mean: float, std: float, settings: tuple[float, float]) -> list[Check]:
    """settings: latent_mean and latent_std, against the figures measured on the data."""
    shift, ratio = abs(mean - settings[0]) / max(std, 1e-12), abs(log10(max(std, 1e-12) / settings[1]))
    advice = f"train again with --set latent_mean={mean:.3g} --set latent_std={std:.3g} (or =measure)"
    return [
        row("latents.mean", mean, f"{settings[0]:.3g} (latent_mean)", verdict_if_above(shift, 0.1, 0.5), advice),
        row(
            "latents.std",
            std,
            f"{settings[1]:.3g} (latent_std)",
            verdict_if_above(ratio, log10(1.25), log10(1.6)),
            advice,
        ),
    ]


# --- the network --------------------------------------------------------------------------------------------------


def decoder(clean: float, noised: float, lookup: float) -> list[Check]:
    """Token accuracies of the decode mode, and that of the nearest training latent at the same noise."""
    more = "train the decoder: --set decoder_prob=0.2, and more steps"
    less = "--set decoder_noise_scale lower, or decoder_prob higher"
    return [
        row("decoder.clean", clean, "at least 0.99", verdict_if_below(clean, 0.99, 0.9), more),
        row(
            "decoder.noised",
            noised,
            f"about a lookup's {lookup:.2f}",
            verdict_if_below(noised, 0.9 * lookup, 0.5 * lookup),
            less if clean >= 0.9 else more,
        ),
    ]


def denoise(t: float, network: float, mean: float, nearest: float) -> Check:
    """Mean squared errors at time t of the network, the mean latent and the nearest training latent."""
    trivial = min(mean, nearest)
    # Of a table of tokens the nearest latent is exact at little noise; a tenth of the variance is near enough.
    verdict = verdict_if_above(network, trivial + 0.1 * mean, min(trivial + 0.3 * mean, 1.05 * mean))
    advice = "the denoiser is no better than a lookup: train longer (--set steps=2x), or a larger --model"
    return row(f"denoise.t{t:g}", network, f"mean latent {mean:.2f}, nearest {nearest:.2f}", verdict, advice)


def recovery(t: float, accuracy: float, lookup: float, paired: bool) -> Check:
    """Token accuracy of texts sampled from real latents noised to time t. paired: the source is given."""
    advice = "sampling leaves the data: more --steps, --set denoiser_noise_scale as in training, or train longer"
    if not paired and t < 0.5:
        return row(f"recovery.t{t:g}", accuracy, "no source, any text", "ok", "")
    wanted = max(lookup, 0.5) if t else 0.5
    verdict = verdict_if_below(accuracy, 0.9 * wanted, 0.6 * wanted)
    return row(f"recovery.t{t:g}", accuracy, f"at least {0.9 * wanted:.2f}, a lookup {lookup:.2f}", verdict, advice)


# --- training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """What a run's settings and log say. losses: of the log's lines. update: an optimiser step's change of a matrix
    relative to its initial size: the learning rate with Muon, times the root of the width with Adam. fresh: started
    from drawn weights, so that the loss has far to fall."""

    lr: float
    update: float
    losses: Sequence[float | None]
    fresh: bool
    spikes: int
    skipped: int
    done: int
    planned: int
    decay: float


def learning_rate(run: History) -> Check:
    """Judged by the loss curve, and by the size of updates where the curve says that something is wrong."""
    known = [loss if loss is not None and isfinite(loss) else float("inf") for loss in run.losses]
    tail = max(len(known) // 10, 1)
    first, last, best = (known[0], fmean(known[-tail:]), min(known)) if known else (1.0, 1.0, 1.0)
    fall = 1 - last / first if isfinite(last) else -1.0
    lower = run.lr * min(UPDATE_GOOD / run.update, 1 / 3)
    higher = run.lr * max(UPDATE_GOOD / run.update, 3)
    usual = f"updates of {UPDATE_LOW:g} to {UPDATE_HIGH:g}, here {run.update:.2g}; loss fell by {fall:.0%}"
    too_high = f"too high: train again with --set lr={lower:.2g}"
    too_low = f"too low: train again with --set lr={higher:.2g}"
    risen = len(known) > 3 and last > max(1.3 * best, best + 0.1 * first)
    if not isfinite(last) or run.skipped > 0.01 * run.done or risen:
        return row("learning_rate", run.lr, usual, "fail", too_high)
    if run.update > UPDATE_HIGH:
        return row("learning_rate", run.lr, usual, "fail" if fall < 0.8 else "warn", too_high)
    if run.fresh and run.update < UPDATE_LOW:
        return row("learning_rate", run.lr, usual, "fail" if fall < 0.8 else "warn", too_low)
    if run.fresh and len(known) > 3 and fall < 0.1:
        return row("learning_rate", run.lr, usual, "fail", too_low if run.update < UPDATE_GOOD else too_high)
    spiky = run.spikes > max(2, 0.05 * len(known))
    return row("learning_rate", run.lr, usual, "warn" if spiky else "ok", f"the loss spikes {run.spikes} times, "
               + too_high)  # fmt: skip


def steps(run: History, learned: bool) -> Check:
    """learned: the network does its task. Where it does not, a loss that still falls asks for more steps."""
    known = [loss for loss in run.losses if loss is not None and isfinite(loss)]
    third = max(len(known) // 3, 1)
    fall = 1 - fmean(known[-third:]) / fmean(known[-2 * third : -third]) if len(known) > 2 else 0.0
    said = f"{run.done} of {run.planned}"
    expected = f"all; loss still falling by {fall:.0%} over the last third"
    advice = f"train longer: elf resume RUN --set steps={2 * run.planned}"
    if run.done < run.planned:
        verdict = "warn" if learned else "fail"
        return row("steps", said, expected, verdict, "training is not finished: elf resume RUN")
    return row("steps", said, expected, "ok" if learned else "fail" if fall > 0.05 else "warn", advice)


def average(decay: float, done: int, errors: tuple[float, float] | None) -> list[Check]:
    """The weights' moving average after `done` steps. errors: mean denoise errors of the raw weights and of it."""
    share, horizon = decay**done, 1 / (1 - decay)
    good = 1 - max(10 / max(done, 11), 1e-4)
    advice = f"the average is too long: train again with --set ema_decay={good:.4g}; meanwhile --raw-weights"
    expected = f"at most 0.01: horizon {horizon:,.0f} steps, {done:,} trained"
    rows = [row("ema.initial_share", share, expected, verdict_if_above(share, 0.01, 0.1), advice)]
    if errors is not None:
        raw, ema = errors
        rows.append(
            row(
                "ema.error",
                ema,
                f"about the raw weights' {raw:.3g}",
                verdict_if_above(ema, 1.1 * raw + 0.02, 1.3 * raw + 0.1),
                advice,
            )
        )
    return rows


# --- sampling -----------------------------------------------------------------------------------------------------


def texts(found: Mapping[str, float], usual: Mapping[str, float]) -> list[Check]:
    """Shares of `quality.shares`, with `memorised`, of samples and of real texts."""
    advice = {
        "empty": "check pad_token=eos and padding, then --steps 64",
        "degenerate": "more --steps, another --sc-cfg or --cfg, or --sampler sde with --gamma 1; else train longer",
        "duplicate": "lower --cfg, --sampler sde, or more data",
        "memorised": "overfitted: fewer steps (an earlier --at-step), more data, or --set proj_dropout=0.1",
    }
    rows = [
        row(f"sampling.{name}", found[name], f"about {usual[name]:.3g} as in real texts",
            verdict_if_above(found[name] - usual[name], 0.1, 0.3), words)
        for name, words in advice.items() if name in found
    ]  # fmt: skip
    ratio = found["words"] / max(usual["words"], 1e-9)
    verdict = verdict_if_above(abs(log10(max(ratio, 1e-9))), log10(1.3), log10(2))
    longer = "compare max_length and max_input_length with the data; pad_token=eos makes texts end"
    return [*rows, row("sampling.words", found["words"], f"about {usual['words']:.1f}", verdict, longer)]


def sampling_comparison(chosen: str, values: Mapping[str, tuple[float, float | None]]) -> list[Check]:
    """One row per way to sample, {options: (share of broken texts, BLEU or None)}; only the chosen one is judged."""

    def better(way: str) -> float:
        broken, bleu = values[way]
        return -100 * broken if bleu is None else bleu

    best, rows = max(values, key=better), []
    for way, (broken, bleu) in values.items():
        said = f"broken {broken:.0%}" + ("" if bleu is None else f", BLEU {bleu:.1f}")
        worse = way == chosen and better(best) > better(chosen) + 5
        expected = f"best {better(best):.1f}" if way == chosen else "to compare"
        rows.append(row(f"sampling.{way}", said, expected, "warn" if worse else "ok", f"sample with {best}"))
    return rows


def first_advice(rows: Sequence[Check]) -> str:
    """The one thing to try first: the advice of the most fundamental failing row, else of a warning."""

    def part(check: Check) -> str:
        return check.check.partition(".")[0]

    failing = {part(check) for check in rows if check.verdict == "fail"}
    order = list(CHECK_ORDER)
    if "denoise" in failing:  # then the decoder suffers from what the denoiser suffers from
        order.insert(order.index("denoise"), order.pop(order.index("decoder")))
    for verdict in ("fail", "warn"):
        found = [check for check in rows if check.verdict == verdict]
        if found:
            check = min(found, key=lambda check: order.index(part(check)))
            return f"{check.check}: {check.advice}"
    return "nothing: no check found a fault"


def named(rows: Sequence[Check], run: str) -> list[Check]:
    """The rows, with the run's name in place of RUN."""
    return [replace(check, advice=check.advice.replace("RUN", run)) for check in rows]
