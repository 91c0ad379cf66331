"""Verdicts of `elf doctor`: from measured figures to rows that name the setting to change. No network, no file.

A row's name begins with its part of the training, e.g. `latents.std`. CHECK_ORDER lists causes before their effects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log10
from statistics import fmean

import numpy as np

from elfcli.flow.schedules import fitting_noise

CHECK_ORDER = (
    "data",
    "latents",
    "noise",
    "decoder",
    "learning_rate",
    "steps",
    "ema",
    "denoise",
    "recovery",
    "sampling",
)
MIN_PIECE_COUNT = 5  # times in the samples; rarer pieces are too often by chance
UPDATE_LOW, UPDATE_GOOD, UPDATE_HIGH = 5e-4, 5e-3, 0.1
"""An optimizer step's change of a matrix relative to its initial size: too little, usual, too much."""


@dataclass(frozen=True)
class Check:
    """A row of the report. verdict: ok, warn or fail. advice: the setting to change; empty if the verdict is ok."""

    check: str
    value: float | str | None
    expected: str
    verdict: str
    advice: str = ""


def row(name: str, value: float | str, expected: str, verdict: str, advice: str) -> Check:
    """Return a row, whose value is None if it is not finite, because JSON has no number for it."""
    shown: float | str | None = value
    if not isinstance(value, str):
        shown = float(f"{value:.4g}") if isfinite(value) else None
    return Check(name, shown, expected, verdict, advice if verdict != "ok" else "")


def verdict_if_above(value: float, warn: float, fail: float) -> str:
    """Return the verdict of a figure that should be small; NaN fails."""
    return "ok" if value <= warn else "warn" if value <= fail else "fail"


def verdict_if_below(value: float, warn: float, fail: float) -> str:
    """Return the verdict of a figure that should be large; NaN fails."""
    return verdict_if_above(-value, -warn, -fail)


def next_multiple_of_8(number: int) -> int:
    """Return the smallest multiple of 8 that is not below the number."""
    return -(-number // 8) * 8


# --- data and latents ---------------------------------------------------------------------------------------------


def ids(largest: int, vocabulary: int) -> Check:
    """Check that all token ids are in the model's vocabulary."""
    advice = (
        "tokenize the data with the model's tokenizer (elf tokenize --tokenizer RUN/tokenizer), or set tokenizer_name "
        "to the data's and train again"
    )
    return row("data.largest_id", largest, f"below {vocabulary}", "ok" if largest < vocabulary else "fail", advice)


def same_vocabulary(of_data: Mapping[str, int], of_model: Mapping[str, int]) -> Check:
    """Check the share of the data's pieces that have the same id in the model's tokenizer. Tokenizers: {piece: id}."""
    share = sum(of_model.get(piece) == number for piece, number in of_data.items()) / max(len(of_data), 1)
    advice = (
        "the data was made with another tokenizer: leave tokenizer_name out (the default is the data's tokenizer) and "
        "train again, or tokenize the data with the model's"
    )
    return row("data.same_tokenizer", share, "1", verdict_if_below(share, 1, 0.99), advice)


def encoder_vocabulary(tokenizer: int, encoder: int, name: str) -> Check:
    """Check that the tokenizer and the encoder of this name have vocabularies of the same size."""
    advice = f"{name} has another vocabulary: tokenize with --tokenizer {name}, or set encoder_model_name=embedding"
    fits = tokenizer <= encoder <= 1.05 * tokenizer + 64  # T5's table is rounded up
    return row("data.vocabulary", tokenizer, f"about the encoder's {encoder}", "ok" if fits else "fail", advice)


def cut(side: str, lengths: np.ndarray, room: np.ndarray | int, setting: str, others: int) -> Check:
    """Check the share of rows that are truncated. others: tokens that `setting` has to hold besides these."""
    share = float(np.mean(lengths > room))
    needed = others + next_multiple_of_8(int(np.percentile(lengths, 99, method="inverted_cdf")))
    also = ", and max_length with it" if setting == "max_input_length" else ""
    advice = f"train again with --set {setting}={needed}{also}: what is truncated cannot be learned"
    return row(f"data.{side}_cut", share, "at most 0.01", verdict_if_above(share, 0.01, 0.1), advice)


def padding(lengths: np.ndarray, max_length: int) -> Check:
    """Check the share of positions that are padding."""
    share = 1 - float(np.mean(np.minimum(lengths, max_length))) / max_length
    needed = next_multiple_of_8(int(lengths.max()))
    advice = f"most positions are padding: --set max_length={needed}, or elf tokenize --pack for free text"
    return row("data.padding", share, "at most 0.75", verdict_if_above(share, 0.75, 1), advice)


def latents(mean: float, std: float, settings: tuple[float, float]) -> list[Check]:
    """Check the latents' measured mean and standard deviation. settings: latent_mean and latent_std."""
    shift, ratio = abs(mean - settings[0]) / max(std, 1e-12), abs(log10(max(std, 1e-12) / settings[1]))
    advice = f"train again with --set latent_mean={mean:.3g} --set latent_std={std:.3g} (or =measure)"
    of_mean, of_std = verdict_if_above(shift, 0.1, 0.5), verdict_if_above(ratio, log10(1.25), log10(1.6))
    return [
        row("latents.mean", mean, f"{settings[0]:.3g} (latent_mean)", of_mean, advice),
        row("latents.std", std, f"{settings[1]:.3g} (latent_std)", of_std, advice),
    ]


# --- noise --------------------------------------------------------------------------------------------------------


def denoiser_noise(read: float, scale: float, width: int, harmful: bool) -> Check:
    """Check the share of a free text's tokens that a lookup reads at the median time of training. harmful: whether
    samples have the fault that too much noise causes; without it a small vocabulary bears more noise."""
    fitting = fitting_noise(width)[0]
    advice = f"the noise does not fit latents of {width} numbers: train again with --set denoiser_noise_scale="
    verdict = "ok" if 0.05 <= read <= 0.6 else "fail" if harmful else "warn"
    expected = f"0.05 to 0.6 (denoiser_noise_scale {scale:g})"
    return row("noise.denoiser", read, expected, verdict, f"{advice}{fitting:.2g}")


def decoder_noise(read: float, scale: float, width: int, norms: tuple[float, float]) -> Check:
    """Check how many tokens a lookup reads in the decoder's training input, as a share of those that it reads in clean
    latents. norms: of the input's vectors and of the latents, which the decoder is given when texts are sampled."""
    fitting = fitting_noise(width)[1]
    advice = f"the decoder is trained on little but noise: train again with --set decoder_noise_scale={fitting:.2g}"
    expected = f"at least 0.85 (decoder_noise_scale {scale:g}; norm {norms[0]:.1f}, latents' {norms[1]:.1f})"
    return row("noise.decoder", read, expected, verdict_if_below(read, 0.85, 0.7), advice)


# --- the network --------------------------------------------------------------------------------------------------


def decoder(clean: float, noised: float, lookup: float) -> list[Check]:
    """Check the decoder's token accuracies. lookup: that of the nearest training latent at the same noise."""
    train_more = "train the decoder: --set decoder_prob=0.2, and more steps"
    advice = "--set decoder_noise_scale lower, or decoder_prob higher" if clean >= 0.9 else train_more
    verdict = verdict_if_below(noised, 0.9 * lookup, 0.5 * lookup)
    return [
        row("decoder.clean", clean, "at least 0.99", verdict_if_below(clean, 0.99, 0.9), train_more),
        row("decoder.noised", noised, f"about a lookup's {lookup:.2f}", verdict, advice),
    ]


def denoise(t: float, network: float, mean: float, nearest: float) -> Check:
    """Check the mean squared error at time t against those of the mean latent and the nearest training latent."""
    trivial = min(mean, nearest)
    # Of a table of tokens the nearest latent is exact at little noise; a tenth of the variance is near enough.
    verdict = verdict_if_above(network, trivial + 0.1 * mean, min(trivial + 0.3 * mean, 1.05 * mean))
    advice = "the denoiser does not beat a lookup: train longer (--set steps=2x), or use a larger --model"
    return row(f"denoise.t{t:g}", network, f"mean latent {mean:.2f}, nearest {nearest:.2f}", verdict, advice)


def recovery(t: float, accuracy: float, lookup: float, paired: bool) -> Check:
    """Check the token accuracy of texts sampled from real latents noised to time t. paired: there is a source."""
    advice = "sampling leaves the data: more --steps, --set denoiser_noise_scale as in training, or train longer"
    if not paired and t < 0.5:
        return row(f"recovery.t{t:g}", accuracy, "no source, any text", "ok", "")
    expected = max(lookup, 0.5) if t else 0.5
    verdict = verdict_if_below(accuracy, 0.9 * expected, 0.6 * expected)
    return row(f"recovery.t{t:g}", accuracy, f"at least {0.9 * expected:.2f}, a lookup {lookup:.2f}", verdict, advice)


# --- training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """A run's settings and log. losses: of the log's lines. fresh: trained from random weights, with far to fall.

    update: an optimizer step's change of a matrix relative to its initial size: the learning rate with Muon, times the
    root of the width with Adam.
    """

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
    """Check the learning rate by the loss curve, and by the size of updates if the curve shows a fault."""
    losses = [loss if loss is not None and isfinite(loss) else float("inf") for loss in run.losses]
    tail = max(len(losses) // 10, 1)
    first, last, best = (losses[0], fmean(losses[-tail:]), min(losses)) if losses else (1.0, 1.0, 1.0)
    fall = 1 - last / first if isfinite(last) else -1.0
    too_high = f"too high: train again with --set lr={run.lr * min(UPDATE_GOOD / run.update, 1 / 3):.2g}"
    too_low = f"too low: train again with --set lr={run.lr * max(UPDATE_GOOD / run.update, 3):.2g}"
    risen = len(losses) > 3 and last > max(1.3 * best, best + 0.1 * first)
    verdict, advice = "ok", ""
    if not isfinite(last) or run.skipped > 0.01 * run.done or risen:
        verdict, advice = "fail", too_high
    elif run.update > UPDATE_HIGH:
        verdict, advice = "fail" if fall < 0.8 else "warn", too_high
    elif run.fresh and run.update < UPDATE_LOW:
        verdict, advice = "fail" if fall < 0.8 else "warn", too_low
    elif run.fresh and len(losses) > 3 and fall < 0.1:
        verdict, advice = "fail", too_low if run.update < UPDATE_GOOD else too_high
    elif run.spikes > max(2, 0.05 * len(losses)):
        verdict, advice = "warn", f"the loss spikes {run.spikes} times, {too_high}"
    expected = f"updates of {UPDATE_LOW:g} to {UPDATE_HIGH:g}, measured {run.update:.2g}; loss fell by {fall:.0%}"
    return row("learning_rate", run.lr, expected, verdict, advice)


def steps(run: History, learned: bool) -> Check:
    """Check the number of steps. If the task is not learned, a loss that still falls calls for more steps."""
    losses = [loss for loss in run.losses if loss is not None and isfinite(loss)]
    third = max(len(losses) // 3, 1)
    fall = 1 - fmean(losses[-third:]) / fmean(losses[-2 * third : -third]) if len(losses) > 2 else 0.0
    advice = f"train longer: elf resume RUN --set steps={2 * run.planned}"
    verdict = "ok" if learned else "fail" if fall > 0.05 else "warn"
    if run.done < run.planned:
        verdict, advice = "warn" if learned else "fail", "training is not finished: elf resume RUN"
    expected = f"all; loss still falling by {fall:.0%} over the last third"
    return row("steps", f"{run.done} of {run.planned}", expected, verdict, advice)


def average(decay: float, done: int, errors: tuple[float, float] | None) -> list[Check]:
    """Check the weights' moving average after `done` steps. errors: mean denoise errors of raw and of EMA weights."""
    share, horizon = decay**done, 1 / (1 - decay)
    good = 1 - max(10 / max(done, 11), 1e-4)
    advice = f"the average is too long: train again with --set ema_decay={good:.4g}; meanwhile --raw-weights"
    expected = f"at most 0.01: horizon {horizon:,.0f} steps, {done:,} trained"
    rows = [row("ema.initial_share", share, expected, verdict_if_above(share, 0.01, 0.1), advice)]
    if errors is not None:
        raw, ema = errors
        verdict = verdict_if_above(ema, 1.1 * raw + 0.02, 1.3 * raw + 0.1)
        rows.append(row("ema.error", ema, f"about the raw weights' {raw:.3g}", verdict, advice))
    return rows


# --- sampling -----------------------------------------------------------------------------------------------------


def texts(found: Mapping[str, float], usual: Mapping[str, float]) -> list[Check]:
    """Check the shares of `quality_shares`, with `memorised`, of samples against those of real texts."""
    advice = {
        "empty": "check pad_token=eos and padding, then --steps 64",
        "degenerate": "more --steps, another --sc-cfg or --cfg, or --sampler sde with --gamma 1; else train longer",
        "duplicate": "lower --cfg, --sampler sde, or more data",
        "memorised": "overfitted: fewer steps (an earlier --at-step), more data, or --set proj_dropout=0.1",
    }
    rows = []
    for name, words in advice.items():
        if name in found:
            verdict = verdict_if_above(found[name] - usual[name], 0.1, 0.3)
            rows.append(
                row(f"sampling.{name}", found[name], f"about {usual[name]:.3g} as in real texts", verdict, words)
            )
    ratio = found["words"] / max(usual["words"], 1e-9)
    verdict = verdict_if_above(abs(log10(max(ratio, 1e-9))), log10(1.3), log10(2))
    longer = "compare max_length and max_input_length with the data; pad_token=eos makes texts end"
    return [*rows, row("sampling.words", found["words"], f"about {usual['words']:.1f}", verdict, longer)]


def pieces(generated: Mapping[str, int], training: Mapping[str, int]) -> Check:
    """Check for pieces that samples hold more than 20 times as often as the training texts do. Counts by piece."""
    of_samples, of_training = sum(generated.values()), sum(training.values())
    times = {
        piece: count / of_samples * of_training / max(training.get(piece, 0), 0.5)
        for piece, count in generated.items()
        if count >= MIN_PIECE_COUNT
    }
    worst = sorted((piece for piece in times if times[piece] > 20), key=lambda piece: -times[piece])
    named = ", ".join(f"{piece} x{times[piece]:,.0f} ({generated[piece]})" for piece in worst[:3])
    verdict = "ok" if not worst else "fail" if times[worst[0]] > 100 else "warn"
    advice = "the decoder sees latents that it was not trained on: see noise above; else train longer, or more --steps"
    return row("sampling.pieces", named or "none", "none x20 or more, of training texts", verdict, advice)


def sampling_comparison(chosen: str, values: Mapping[str, tuple[float, float | None]]) -> list[Check]:
    """Return a row per sampling setting, {options: (share of broken texts, BLEU or None)}; only `chosen` is judged."""

    def quality(setting: str) -> float:
        broken, bleu = values[setting]
        return -100 * broken if bleu is None else bleu

    best, rows = max(values, key=quality), []
    for setting, (broken, bleu) in values.items():
        figures = f"broken {broken:.0%}" + ("" if bleu is None else f", BLEU {bleu:.1f}")
        verdict = "warn" if setting == chosen and quality(best) > quality(chosen) + 5 else "ok"
        expected = f"best {quality(best):.1f}" if setting == chosen else "to compare"
        rows.append(row(f"sampling.{setting}", figures, expected, verdict, f"sample with {best}"))
    return rows


def first_advice(rows: Sequence[Check]) -> str:
    """Return what to try first: the advice of the most fundamental failing row, or else of a warning."""

    def part(check: Check) -> str:
        return check.check.partition(".")[0]

    order = list(CHECK_ORDER)
    if any(check.verdict == "fail" and part(check) == "denoise" for check in rows):
        order.insert(order.index("denoise"), order.pop(order.index("decoder")))  # then both have the same cause
    for verdict in ("fail", "warn"):
        faults = [check for check in rows if check.verdict == verdict]
        if faults:
            check = min(faults, key=lambda check: order.index(part(check)))
            return f"{check.check}: {check.advice}"
    return "nothing to fix"


def named(rows: Sequence[Check], run: str) -> list[Check]:
    """Return the rows, with the run's name in place of RUN."""
    return [replace(check, advice=check.advice.replace("RUN", run)) for check in rows]
