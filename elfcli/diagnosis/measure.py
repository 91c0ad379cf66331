"""Measurements behind `elf doctor`: how a model behaves on held-out data."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from elfcli.data.folder import Examples, load_examples, recorded_tokenizer
from elfcli.data.ids import largest_id
from elfcli.data.plain_text import plain_encoder
from elfcli.data.tokenizers import load_tokenizer
from elfcli.diagnosis import checks, probe
from elfcli.diagnosis.checks import Check, History
from elfcli.diagnosis.probe import Probe
from elfcli.errors import InputError
from elfcli.flow.schedules import median_time
from elfcli.parallel.mesh import on_devices
from elfcli.runs.checkpoint import load_weights
from elfcli.runs.examples import evaluation_examples
from elfcli.sampling.generate import Options, generate
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting, settings_of, without_repeats
from elfcli.sampling.sources import example_sources, training_texts
from elfcli.scoring import text_quality as quality
from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.protocol import AUTO

DENOISE_TIMES, STARTS, SOLVER_STEPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95), (0.9, 0.5, 0.3, 0.0), 32
MAX_BANK_LATENTS, MAX_COMPARED_TOKENS, MAX_COUNTED_ROWS = 4096, 2048, 100_000
"""Training latents to look up, tokens compared with them, training texts whose pieces are counted."""


class DoctorData(NamedTuple):
    """held_out: evaluation examples. train: training examples. new: whether the two are disjoint."""

    held_out: Examples
    train: Examples
    new: bool


class LatentBank(NamedTuple):
    """Latents (K, E) of training texts, and their tokens (K,)."""

    latents: np.ndarray
    ids: np.ndarray


def open_data(model: LoadedModel, data: str | None) -> DoctorData:
    """Return the validation split, or else the training data. Raises InputError if there is neither."""
    train, folder = None, data or model.config.data.data_path
    with suppress(InputError):
        train = load_examples(folder, "train") if folder is not None else None
    try:
        held_out = evaluation_examples(model.config, data)
    except InputError:
        if train is None:
            raise
        return DoctorData(train, train, False)
    return DoctorData(held_out, train or held_out, train is not None and held_out.fingerprint != train.fingerprint)


def diagnose(
    model: LoadedModel, data: DoctorData, history: History | None, options: Options, count: int
) -> list[Check]:
    """Return all rows; only those of the data if its ids are outside the vocabulary, which forbids computation."""
    rows = data_rows(model, data.train)
    if rows[0].verdict == "fail":
        return rows
    tried, bank = encode_examples(model, data, options.seed, count)
    mean, std = float(model.config.encoder.latent_mean), float(model.config.encoder.latent_std)
    latents = tried.x0_BxSxE[tried.valid_BxS] * std + mean
    rows += checks.latents(float(latents.mean()), float(latents.std()), (mean, std))
    sampled = sampling_rows(model, data, options, count)
    too_often = any(check.check == "sampling.pieces" and check.verdict != "ok" for check in sampled)
    return [*rows, *noise_rows(model, tried, bank, too_often), *network_rows(model, tried, bank, history), *sampled]


def noise_rows(model: LoadedModel, tried: Probe, bank: LatentBank, harmful: bool) -> list[Check]:
    """Return the rows of the noise scales: how many tokens the nearest training latent reads through the noise.

    harmful: as of `checks.denoiser_noise`.
    """
    program, objective = probe.probe_program(model, 1), model.config.objective
    at, width = np.nonzero(tried.text_BxS), model.encoder.dim

    def read(z: np.ndarray, share: Any) -> float:
        return float((bank.ids[probe.nearest(z, share, bank.latents)] == tried.ids_BxS[at]).mean())

    z, share = (np.asarray(a)[at] for a in probe.decoder_input(program, tried))
    norms = float(np.sqrt((z**2).sum(1).mean())), float(np.sqrt((tried.x0_BxSxE[at] ** 2).sum(1).mean()))
    readable = max(read(tried.x0_BxSxE[at], 1.0), 1e-9)  # the bank lacks rare tokens
    rows = [checks.decoder_noise(read(z, share[:, 0]) / readable, objective.decoder_noise_scale, width, norms)]
    if not tried.cond_BxS.any():  # a source tells what the text is, through any noise
        t = median_time(objective.time_schedule, objective.denoiser_p_mean)
        z = np.asarray(probe.noised(program, tried, np.float32(t)))[at]
        rows.insert(0, checks.denoiser_noise(read(z, t), objective.denoiser_noise_scale, width, harmful))
    return rows


def data_rows(model: LoadedModel, train: Examples) -> list[Check]:
    """Return the rows of the data: ids, vocabularies, lengths."""
    config, tokens = model.config.data, train.tokens
    columns = [column for column in (tokens.input_ids, tokens.condition_input_ids) if column is not None]
    rows = [checks.ids(train.largest_id or max(map(largest_id, columns)), model.shape.vocab_size)]
    with suppress(InputError):  # the data does not record its tokenizer
        of_data = load_tokenizer(recorded_tokenizer(train)).get_vocab()
        rows.append(checks.same_vocabulary(of_data, model.tokenizer.get_vocab()))
    if (name := model.config.encoder.encoder_model_name) != "embedding":
        rows.append(checks.encoder_vocabulary(model.shape.vocab_size, model.encoder.vocab_size, name))
    texts, taken = tokens.input_ids.lengths(), np.zeros(len(train), np.int64)
    if config.max_input_length and tokens.condition_input_ids is not None:
        sources = tokens.condition_input_ids.lengths()
        taken = np.minimum(sources, config.max_input_length)
        rows.append(checks.cut("sources", sources, config.max_input_length, "max_input_length", 0))
    rows.append(checks.cut("targets", texts, config.max_length - taken, "max_length", config.max_input_length))
    return [*rows, checks.padding(texts + taken, config.max_length)]


def encode_examples(model: LoadedModel, data: DoctorData, seed: int, count: int) -> tuple[Probe, LatentBank]:
    """Return the first held-out examples with their latents, and a bank of latents of other training examples."""
    program, count = probe.probe_program(model, 1), min(count, len(data.held_out))
    tried = probe.on_examples(model, program, data.held_out, np.arange(count), seed)
    size = len(tried.ids_BxS)
    others = np.arange(0 if data.new or len(data.train) <= count else count, len(data.train))
    others, parts, total = np.random.default_rng(seed).permutation(others), [], 0
    for first in range(0, len(others), size):
        numbers = np.resize(others[first : first + size], size)  # one shape, one compilation
        batch = probe.on_examples(model, program, data.train, numbers, seed)
        parts.append((batch.x0_BxSxE[batch.text_BxS], batch.ids_BxS[batch.text_BxS]))
        total += len(parts[-1][1])
        if total >= MAX_BANK_LATENTS:
            break
    return tried, LatentBank(*(np.concatenate(column)[:MAX_BANK_LATENTS] for column in zip(*parts, strict=True)))


def network_rows(model: LoadedModel, tried: Probe, bank: LatentBank, history: History | None) -> list[Check]:
    """Return the rows of decoder, denoiser, flow, training and average.

    For a run, the better of raw and average weights are judged: the average has rows of its own.
    """
    program = probe.probe_program(model, SOLVER_STEPS)
    compared = np.random.default_rng(0).permutation(np.argwhere(tried.text_BxS))[:MAX_COMPARED_TOKENS]
    at = tuple(compared.T)
    x0, ids, weights = tried.x0_BxSxE[at], tried.ids_BxS[at], {model.source.ema: model.params}
    if model.source.kind == "run" and model.source.folder is not None:
        other, _ = load_weights(model.source.folder, ema=not model.source.ema, step=model.step)
        weights[not model.source.ema] = on_devices(other)
    noisy, errors = {}, {}
    for ema, params in weights.items():
        for t in DENOISE_TIMES:
            noisy[t], x = (np.asarray(a)[at] for a in probe.denoised(program, params, tried, np.float32(t)))
            errors[ema, t] = float(((x - x0) ** 2).mean())
    means = {ema: float(np.mean([errors[ema, t] for t in DENOISE_TIMES])) for ema in weights}
    best = min(weights, key=lambda ema: means[ema] if np.isfinite(means[ema]) else np.inf)
    nearest, params = {t: probe.nearest(noisy[t], t, bank.latents) for t in DENOISE_TIMES}, weights[best]

    def accuracy(tokens: np.ndarray) -> float:
        return float((tokens == ids).mean())

    clean, noised, z, share = (np.asarray(a)[at] for a in probe.reconstructed(program, params, tried))
    lookup = bank.ids[probe.nearest(z, share[:, 0], bank.latents)]
    rows = checks.decoder(accuracy(clean), accuracy(noised), accuracy(lookup))
    trivial = float(((x0 - bank.latents.mean(axis=0)) ** 2).mean())
    for t in DENOISE_TIMES:
        error = float(((bank.latents[nearest[t]] - x0) ** 2).mean())
        rows.append(checks.denoise(t, errors[best, t], trivial, error))
    for t in STARTS:
        tokens = np.asarray(probe.recovered(program, params, tried, np.float32(t)))[at]
        looked_up = accuracy(bank.ids[nearest[t]])
        rows.append(checks.recovery(t, accuracy(tokens), looked_up, bool(tried.cond_BxS.any())))
    if history is not None:
        learned = not any(check.verdict == "fail" for check in rows)
        rows += [checks.learning_rate(history), checks.steps(history, learned)]
        rows += checks.average(history.decay, history.done, (means[False], means[True]))
    return rows


def sampling_rows(model: LoadedModel, data: DoctorData, options: Options, count: int) -> list[Check]:
    """Return rows that compare texts of the preset's setting with real ones and with a few other settings."""
    paired, sources = model.config.data.takes_sources, example_sources(model, data.held_out, count)
    references = [row["reference"] for row in sources.rows]
    usual = settings_of(model.config.sampling)[0]
    usual = usual if paired else replace(usual, candidates=1)  # free texts have none to choose from
    plain = replace(usual, sampling_method="ode", num_sampling_steps=32, cfg=1.0, candidates=1)
    others = [replace(plain, num_sampling_steps=steps) for steps in (8, 32, 64)]
    others += [replace(plain, cfg=cfg) for cfg in (1.5, 2.0)] if paired else []
    settings = without_repeats([usual, *others])
    options = replace(options, longest=max(setting.num_sampling_steps for setting in settings))
    texts = [list(generate(model, sources.conditions, setting, options)) for setting in settings]

    def options_of(setting: SamplingSetting) -> str:
        return f"{setting.sampling_method} --steps {setting.num_sampling_steps} --cfg {setting.cfg:g}"

    values: dict[str, tuple[float, float | None]] = {}
    for setting, generated in zip(settings, texts, strict=True):
        shares = quality.quality_shares(generated)
        bleu = corpus_bleu(generated, references, AUTO).bleu if paired else None
        values[options_of(setting)] = shares["empty"] + shares["degenerate"], bleu
    seen = training_texts(model, data.train) if data.new else set()
    figures, real = quality.quality_shares(texts[0], seen), quality.quality_shares(references, seen)
    pieces = checks.pieces(piece_counts(model, texts[0]), training_counts(model, data.train))
    return [*checks.texts(figures, real), pieces, *checks.sampling_comparison(options_of(settings[0]), values)]


def piece_counts(model: LoadedModel, texts: Sequence[str]) -> Counter[str]:
    """Return how often each piece occurs in the texts."""
    rows = plain_encoder(model.tokenizer)(texts)
    return Counter(piece for ids in rows for piece in model.tokenizer.convert_ids_to_tokens(ids))


def training_counts(model: LoadedModel, train: Examples) -> dict[str, int]:
    """Return how often each piece occurs in the first training texts."""
    rows = [train.tokens.input_ids[i] for i in range(min(len(train), MAX_COUNTED_ROWS))]
    counts = np.bincount(np.concatenate(rows), minlength=model.shape.vocab_size)
    numbers = np.nonzero(counts)[0].tolist()
    return dict(zip(model.tokenizer.convert_ids_to_tokens(numbers), counts[numbers].tolist(), strict=True))
