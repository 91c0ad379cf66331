"""What a model does on data it should know how to treat: the figures behind the rows of `elf doctor`.

Shapes: B examples, S sequence, E latent width, K training latents, N real tokens of the texts.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from elfcli.data.batches import collate
from elfcli.data.folder import Examples, decoded, eos_id, load_examples, load_tokenizer, pad_id, recorded_tokenizer
from elfcli.data.ids import largest_id
from elfcli.errors import InputError
from elfcli.evaluation import checks, quality
from elfcli.evaluation.bleu import corpus_bleu
from elfcli.evaluation.checks import Check, History
from elfcli.evaluation.examples import evaluation_examples, rows_of
from elfcli.evaluation.generate import Model, Options, Program, generate
from elfcli.evaluation.ways import Setting, distinct, settings_of
from elfcli.flow import objective, sampler
from elfcli.models.elf import ELF
from elfcli.models.encoder import encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.parallel.mesh import make_mesh, on_devices, round_up_to_devices
from elfcli.runs.checkpoint import load_weights

TIMES, STARTS, SOLVER_STEPS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95), (0.9, 0.6, 0.3, 0.0), 32
MOST_LATENTS, MOST_TOKENS, MOST_TEXTS = 4096, 2048, 20_000
"""Training latents to look up, tokens that are compared with them, training texts that a sample may equal."""


class Data(NamedTuple):
    """held_out: what the model is tried on. train: the training data, or the same. new: they are two splits."""

    held_out: Examples
    train: Examples
    new: bool


class Arrays(NamedTuple):
    """One batch and what the checks draw for it, all traced."""

    ids_BxS: Any
    cond_BxS: Any
    valid_BxS: Any
    x0_BxSxE: Any
    key: Any  # key data, uint32
    guidance: sampler.Guidance


def open_data(model: Model, data: str | None) -> Data:
    """The validation split, else the training data. InputError where there is neither."""
    train, where = None, data or model.config.data.data_path
    if where is not None:
        try:
            train = load_examples(where, "train")
        except InputError:
            train = None
    try:
        held_out = evaluation_examples(model.config, data)
    except InputError:
        if train is None:
            raise
        return Data(train, train, False)
    new = train is not None and held_out.fingerprint != train.fingerprint
    return Data(held_out, train or held_out, new)


def diagnose(model: Model, data: Data, history: History | None, options: Options, count: int) -> list[Check]:
    """All rows. Where token ids are outside the vocabulary those of the data alone, since nothing can be computed."""
    rows = data_rows(model, data.train)
    if rows[0].verdict == "fail":
        return rows
    arrays, bank = encoded(model, data, options.seed, count)
    mean, std = scale_of(model)
    latents = arrays.x0_BxSxE[arrays.valid_BxS] * std + mean
    rows += checks.latents(float(latents.mean()), float(latents.std()), (mean, std))
    network = network_rows(model, arrays, bank, history)
    return [*rows, *network, *sampling_rows(model, data, options, count)]


def data_rows(model: Model, train: Examples) -> list[Check]:
    config, tokens = model.config.data, train.tokens
    columns = [column for column in (tokens.input_ids, tokens.condition_input_ids) if column is not None]
    rows = [checks.ids(train.largest_id or max(map(largest_id, columns)), model.shape.vocab_size)]
    with suppress(InputError):  # the data does not say
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


# --- the network --------------------------------------------------------------------------------------------------


def program_of(model: Model) -> Program:
    return Program(model.shape, model.encoder.apply, model.config.objective, make_mesh(), SOLVER_STEPS)


def everywhere(program: Program, arrays):
    """The arrays replicated on all devices, so that every process can read them."""
    return jax.lax.with_sharding_constraint(arrays, NamedSharding(program.mesh, PartitionSpec()))


@partial(jax.jit, static_argnums=0)
def encode(program: Program, params, ids_BxS, cond_BxS, valid_BxS):
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        mask = encoder_mask(cond_BxS, valid_BxS, jnp.zeros(len(ids_BxS), bool))
        return everywhere(program, program.encode(params, ids_BxS, mask))


def scale_of(model: Model) -> tuple[float, float]:
    return float(model.config.encoder.latent_mean), float(model.config.encoder.latent_std)


def encoded(model: Model, data: Data, seed: int, count: int) -> tuple[Arrays, tuple[np.ndarray, np.ndarray]]:
    """The first held-out examples with their latents, and a lookup: training latents (K, E) with their ids (K,)."""
    config, tokenizer, program, (mean, std) = model.config, model.tokenizer, program_of(model), scale_of(model)
    pads = pad_id(tokenizer) if config.data.pad_token == "pad" else eos_id(tokenizer)
    lengths = {"max_length": config.data.max_length, "max_input_length": config.data.max_input_length}

    def batch(examples: Examples, numbers: Sequence[int]):
        found = collate([examples.tokens[i] for i in numbers], **lengths, pad_id=pads)
        ids, cond, valid = (found[name] for name in ("input_ids", "cond_mask", "valid_mask"))
        latents = np.asarray(encode(program, model.encoder.params, ids, cond, valid))
        return ids, cond, valid, (latents - mean) / std

    count = min(count, len(data.held_out))
    size = round_up_to_devices(count)
    ids, cond, valid, x0 = batch(data.held_out, np.resize(np.arange(count), size).tolist())
    rest = np.arange(0 if data.new else count, len(data.train))
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    drawn = np.random.default_rng(seed).permutation(rest if len(rest) else np.arange(len(data.train)))
    for first in range(0, len(drawn), size):
        tokens, source, real, latents = batch(data.train, np.resize(drawn[first : first + size], size).tolist())
        kept.append((latents[real & ~source], tokens[real & ~source]))
        if sum(len(known) for _, known in kept) >= MOST_LATENTS:
            break
    latents, known = (np.concatenate(parts)[:MOST_LATENTS] for parts in zip(*kept, strict=True))
    w = settings_of(config.sampling)[0].self_cond_cfg_scale
    guidance = sampler.Guidance(jnp.float32(1), jnp.float32(w))
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    return Arrays(ids, cond, valid, x0, key, guidance), (latents, known)


def drawn(program: Program, arrays: Arrays, t):
    """(batch, draws) of the objective, one group of all examples, with time t for each."""
    x0 = arrays.x0_BxSxE[None]
    draws = objective.draw(jax.random.wrap_key_data(arrays.key), program.objective, x0.shape)
    counted = arrays.valid_BxS & ~arrays.cond_BxS
    batch = objective.Batch(arrays.ids_BxS[None], arrays.cond_BxS[None], counted[None], x0)
    return batch, draws._replace(t_GxN=jnp.full(x0.shape[:2], t, jnp.float32))


def noised_to(program: Program, arrays: Arrays, t):
    """Real latents (B, S, E) noised to time t, the condition as it is."""
    batch, draws = drawn(program, arrays, t)
    return objective.denoise_input(batch, draws, program.objective)[0][0]


@partial(jax.jit, static_argnums=0)
def denoised(program: Program, params, arrays: Arrays, t):
    """(noisy latents at time t, the network's estimate of the clean ones), each (B, S, E)."""
    model = nnx.merge(graphdef_of(ELF, program.shape), params)
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        z = noised_to(program, arrays, t)
        condition = sampler.Condition(arrays.cond_BxS, arrays.x0_BxSxE)
        predict = sampler.make_predict(
            model, condition, arrays.guidance, program.objective.t_eps, use_cfg=False, use_w=False
        )
        x, _ = predict(z, condition.keep(jnp.zeros_like(z)), jnp.full(len(z), t, jnp.float32))
        return everywhere(program, (z, x))


@partial(jax.jit, static_argnums=0)
def reconstructed(program: Program, params, arrays: Arrays):
    """Tokens (B, S) of clean latents and of those noised as in training; those latents, and their clean share."""
    model = nnx.merge(graphdef_of(ELF, program.shape), params)
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        batch, draws = drawn(program, arrays, 0.0)
        z = objective.decode_input(batch, draws, program.objective)[0]
        clean, noised = (sampler.decode(model, x, arrays.guidance) for x in (arrays.x0_BxSxE, z))
        return everywhere(program, (clean, noised, z, draws.decoder_lambda_GxNxSx1[0]))


@partial(jax.jit, static_argnums=0)
def recovered(program: Program, params, arrays: Arrays, t):
    """Tokens (B, S) of the flow from real latents noised to time t."""
    model = nnx.merge(graphdef_of(ELF, program.shape), params)
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        z = noised_to(program, arrays, t)
        condition = sampler.Condition(arrays.cond_BxS, arrays.x0_BxSxE)
        grid = (t + (1 - t) * jnp.linspace(0.0, 1.0, program.longest + 1)).at[-1].set(1.0)
        predict = sampler.make_predict(
            model, condition, arrays.guidance, program.objective.t_eps, use_cfg=False, use_w=False
        )
        grid_BxM = jnp.broadcast_to(grid, (len(z), len(grid)))
        z, _ = sampler.solve(predict, z, condition, grid_BxM, lambda i: jnp.zeros_like(z), 0.0)
        return everywhere(program, sampler.decode(model, z, arrays.guidance))


def nearest(z_NxE: np.ndarray, share_N, bank_KxE: np.ndarray) -> np.ndarray:
    """Numbers (N,) of the lookup's latents x for which z is most likely share * x plus noise."""
    share = np.broadcast_to(share_N, len(z_NxE))[:, None]
    return np.argmax(share * (z_NxE @ bank_KxE.T) - share**2 * (bank_KxE**2).sum(axis=1) / 2, axis=1)


def network_rows(model: Model, arrays: Arrays, bank: tuple, history: History | None) -> list[Check]:
    """Decoder, denoiser, flow and average. With both weights at hand the better ones are judged: whether the average
    is at fault has a row of its own."""
    program, (latents, known) = program_of(model), bank
    counted = np.argwhere(np.asarray(arrays.valid_BxS & ~arrays.cond_BxS))
    chosen = np.random.default_rng(0).permutation(len(counted))[:MOST_TOKENS]
    where = tuple(counted[chosen].T)
    x0, ids = np.asarray(arrays.x0_BxSxE)[where], np.asarray(arrays.ids_BxS)[where]
    weights = {model.source.ema: model.params}
    if model.source.kind == "run" and model.source.folder is not None:
        other, _ = load_weights(model.source.folder, ema=not model.source.ema, step=model.step)
        weights[not model.source.ema] = on_devices(other)
    noisy, errors = {}, {}
    for ema, params in weights.items():
        for t in TIMES:
            z, x = (np.asarray(a)[where] for a in denoised(program, params, arrays, np.float32(t)))
            noisy[t], errors[ema, t] = z, float(((x - x0) ** 2).mean())
    means = {ema: float(np.mean([errors[ema, t] for t in TIMES])) for ema in weights}
    best = min(weights, key=lambda ema: means[ema] if np.isfinite(means[ema]) else np.inf)
    params, found = weights[best], {t: nearest(noisy[t], t, latents) for t in TIMES}
    mean_error = float(((x0 - latents.mean(axis=0)) ** 2).mean())

    clean, noised, z, share = (np.asarray(a)[where] for a in reconstructed(program, params, arrays))
    lookup = float((known[nearest(z, share[:, 0], latents)] == ids).mean())
    rows = checks.decoder(float((clean == ids).mean()), float((noised == ids).mean()), lookup)
    for t in TIMES:
        error = float(((latents[found[t]] - x0) ** 2).mean())
        rows.append(checks.denoise(t, errors[best, t], mean_error, error))
    back = {t: np.asarray(recovered(program, params, arrays, np.float32(t)))[where] for t in STARTS}
    paired = bool(np.asarray(arrays.cond_BxS).any())
    scale = model.config.objective.denoiser_noise_scale
    for t in STARTS:
        z = t * x0 + (1 - t) * scale * np.random.default_rng(1).standard_normal(x0.shape)
        by_lookup = float((known[nearest(z, t, latents)] == ids).mean())
        rows.append(checks.recovery(t, float((back[t] == ids).mean()), by_lookup, paired))
    if history is not None:
        both = (means[False], means[True]) if len(means) == 2 else None
        learned = not any(check.verdict == "fail" for check in rows)
        rows += [checks.learning_rate(history), checks.steps(history, learned),
                 *checks.average(history.decay, history.done, both)]  # fmt: skip
    return rows


# --- sampling -----------------------------------------------------------------------------------------------------


def sampling_rows(model: Model, data: Data, options: Options, count: int) -> list[Check]:
    """Texts of the preset's setting against real ones, and a few other settings beside it."""
    config = model.config
    sources = rows_of(model, data.held_out, count)
    references = [row["reference"] for row in sources.rows]
    paired = bool(config.data.max_input_length)
    usual = settings_of(config.sampling)[0]
    plain = replace(usual, sampling_method="ode", num_sampling_steps=32, cfg=1.0)
    others = [replace(plain, num_sampling_steps=steps) for steps in (8, 32, 64)]
    others += [replace(plain, cfg=cfg) for cfg in (1.5, 2.0)] if paired else []
    settings = distinct([usual, *others])
    options = replace(options, longest=max(setting.num_sampling_steps for setting in settings))
    texts = {setting: list(generate(model, sources.conditions, setting, options)) for setting in settings}

    seen = training_texts(model, data.train) if data.new else set()

    def figures(found: list[str]) -> dict[str, float]:
        more = {"memorised": sum(text in seen for text in found) / max(len(found), 1)} if seen else {}
        return quality.shares(found) | more

    values: dict[str, tuple[float, float | None]] = {}
    for setting, found in texts.items():
        shares = quality.shares(found)
        bleu = corpus_bleu(found, references).bleu if paired else None
        values[way(setting)] = shares["empty"] + shares["degenerate"], bleu
    return checks.texts(figures(texts[settings[0]]), figures(references)) + checks.ways(way(settings[0]), values)


def way(setting: Setting) -> str:
    return f"{setting.sampling_method} --steps {setting.num_sampling_steps} --cfg {setting.cfg:g}"


def training_texts(model: Model, train: Examples) -> set[str]:
    """The first training texts, as the model would write them."""
    count = min(len(train), MOST_TEXTS, max(2_000_000 // model.config.data.max_length, 1))
    rows = [train.tokens.input_ids[i].tolist() for i in range(count)]
    return set(decoded(model.tokenizer, rows, model.config.evaluation.clean_up)) - {""}
