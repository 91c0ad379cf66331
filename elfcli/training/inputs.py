"""The inputs of a run: examples, tokenizer and frozen encoder, checked before anything is written."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elfcli.config.schema import Config
from elfcli.data import folder as data
from elfcli.data.batches import Batch, batch_indices, collate, steps_per_epoch
from elfcli.data.buckets import FULL_LENGTH_SHARE, Buckets, make_buckets, positions_needed
from elfcli.data.gaps import FREE, ROOM, GapSettings, drawn_frame
from elfcli.data.tokenizers import eos_id, pad_id, vocab_size
from elfcli.errors import InputError
from elfcli.flow import mmd, objective
from elfcli.models.build import arithmetic
from elfcli.models.elf import ElfShape
from elfcli.models.encoder import Encoder, encoder_mask
from elfcli.runs.examples import evaluation_examples, gap_settings
from elfcli.runs.length import run_length
from elfcli.training.students import feature_network
from elfcli.ui.progress import say
from elfcli.weights.encoder import load_encoder

SIGMA_TEXTS, SIGMA_POSITIONS, SIGMA_TOKENS = 64, 2**14, 2000
"""Largest numbers of texts and positions whose features are computed to measure sigma, and of tokens compared."""


@dataclass(frozen=True)
class RunInputs:
    """What a run reads. collate: turns examples into the arrays of a batch. buckets: None if all have max_length.
    gaps: how they are drawn from free texts; None for none."""

    examples: data.Examples
    tokenizer: Any
    encoder: Encoder
    collate: partial
    buckets: Buckets | None = None
    gaps: GapSettings | None = None


def batch_rows(config: Config, inputs: RunInputs, number: int) -> tuple[int, np.ndarray, int]:
    """Return the length S, the rows of examples (B,) and the epoch of a batch of the run, over all processes.

    number: 0-based.
    """
    count, size, seed = len(inputs.examples), config.global_batch, config.training.seed
    step, part = divmod(number, config.optimization.grad_accum_steps)
    if inputs.buckets and step < (1 - FULL_LENGTH_SHARE) * run_length(config, count).total_steps:
        length, rows = inputs.buckets.batch(step, seed)
        return length, rows[part * size : (part + 1) * size], step // int(inputs.buckets.batches.sum())
    rows = batch_indices(number, num_examples=count, batch_size=size, seed=seed)
    return config.data.max_length, rows, number // steps_per_epoch(count, size)


def load_batch(config: Config, inputs: RunInputs, number: int, mine: slice) -> Batch:
    """Return the arrays of a batch of the run, of this process's part of its examples. number: 0-based."""
    length, rows, epoch = batch_rows(config, inputs, number)
    steps = run_length(config, len(inputs.examples)).total_steps
    free = number < config.data.gaps_after * steps * config.optimization.grad_accum_steps
    return inputs.collate(examples_of(inputs, rows[mine].tolist(), epoch, free), max_length=length)


def examples_of(
    inputs: RunInputs, rows: Iterable[int], epoch: int = 0, free: bool = False
) -> list[dict[str, np.ndarray]]:
    """Return examples, with the gaps of this epoch if the run draws any. free: of such a run, without gaps."""
    tokens, gaps = inputs.examples.tokens, inputs.gaps
    if gaps is None:
        return [tokens[row] for row in rows]
    gaps = replace(gaps, shares=FREE) if free else gaps
    return [drawn_frame(tokens[row]["input_ids"], gaps, row, epoch).example() for row in rows]


def open_inputs(config: Config, examples: data.Examples, tokenizer: Any) -> RunInputs:
    """Open and check everything else that the settings name."""
    vocab = vocab_size(tokenizer)
    if config.evaluation.online_eval and config.data.takes_sources:
        evaluation_examples(config)
    together = partial(
        collate,
        max_length=config.data.max_length,
        max_input_length=config.data.max_input_length,
        pad_id=pad_id(tokenizer) if config.data.pad_token == "pad" else eos_id(tokenizer),
    )
    encoder = load_encoder(config.encoder, vocab, *arithmetic(config))
    gaps = gap_settings(config, eos_id(tokenizer)) if config.data.gaps else None
    return RunInputs(examples, tokenizer, encoder, together, buckets_of(config, examples), gaps)


def buckets_of(config: Config, examples: data.Examples) -> Buckets | None:
    """Return the buckets of the settings, each with at least the examples of an optimizer step."""
    settings, step_size = config.data, config.global_batch * config.optimization.grad_accum_steps
    if not settings.buckets:
        return None
    extra = ROOM if settings.gaps else 0
    needed = positions_needed(examples.tokens, settings.max_length, settings.max_input_length, extra)
    return make_buckets(needed, settings.buckets, settings.max_length, step_size)


def tokenizer_of(config: Config, examples: data.Examples) -> str:
    """Return the tokenizer of the settings, otherwise the one recorded with the data, otherwise the T5 encoder's."""
    if config.data.tokenizer_name is not None:
        return config.data.tokenizer_name
    try:
        return data.recorded_tokenizer(examples)
    except InputError:
        if config.encoder.encoder_model_name == "embedding":
            raise
        return config.encoder.encoder_model_name


def measured_latents(config: Config, inputs: RunInputs, num_examples: int = 1024) -> dict[str, float]:
    """Return latent_mean and latent_std of the first examples' latents, those of them that are set to `measure`."""
    wanted = [name for name in ("latent_mean", "latent_std") if getattr(config.encoder, name) == "measure"]
    if not wanted:
        return {}
    tokens, values = inputs.examples.tokens, []
    encode = jax.jit(inputs.encoder.apply)
    size = min(64, len(tokens))
    for first in range(0, min(num_examples, len(tokens)) - size + 1, size):
        batch = inputs.collate(examples_of(inputs, range(first, first + size)))
        mask = encoder_mask(batch["cond_mask"], batch["valid_mask"], jnp.zeros(size, bool))
        latents = encode(inputs.encoder.params, batch["input_ids"], mask)
        values.append(np.asarray(latents)[batch["valid_mask"]])
    everything = np.concatenate(values)
    found = {"latent_mean": float(everything.mean()), "latent_std": float(everything.std())}
    found = {name: found[name] for name in wanted}
    say(f"measured over {len(everything)} tokens: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
    return found


def measured_sigma(config: Config, inputs: RunInputs, teacher: dict, shape: ElfShape) -> float:
    """Return the median distance between the teacher's features of real tokens in the first examples, without padding.

    Raises InputError if there are too few tokens.
    """
    cfg, tokens = config.objective, inputs.examples.tokens
    size = min(SIGMA_TEXTS, max(SIGMA_POSITIONS // config.data.max_length, 1), len(tokens))
    batch = inputs.collate([tokens[i] for i in range(size)])
    key = jax.random.key(config.training.seed)

    @jax.jit
    def features(teacher: dict, encoder: Any, ids: jax.Array, cond: jax.Array, valid: jax.Array) -> jax.Array:
        latents = inputs.encoder.apply(encoder, ids, encoder_mask(cond, valid, jnp.zeros(size, bool)))
        x0 = ((latents - float(config.encoder.latent_mean)) / float(config.encoder.latent_std))[None]
        draws = objective.draw(key, cfg, (1, ids.shape[0], ids.shape[1], latents.shape[-1]))
        network = feature_network(teacher, shape, config.distillation)
        noise, texts = draws.noise_GxNxSxE * cfg.denoiser_noise_scale, objective.Batch(ids[None], cond[None], valid, x0)
        return mmd.token_features(network, (x0, noise), texts, draws.w_GxN, cfg)[0]

    arrays = batch["input_ids"], batch["cond_mask"], batch["valid_mask"]
    real = np.asarray(features(teacher, inputs.encoder.params, *arrays), np.float64)[batch["valid_mask"]]
    real = np.random.default_rng(config.training.seed).permutation(real)[:SIGMA_TOKENS]
    norms = (real**2).sum(axis=1)
    squared = (norms[:, None] + norms - 2 * real @ real.T)[np.triu_indices(len(real), 1)]
    sigma = float(np.sqrt(np.maximum(np.median(squared), 0))) if squared.size else 0.0
    if not sigma:
        raise InputError("sigma: the data has too few tokens to measure it; set it, for example -s sigma=50")
    say(f"measured sigma {sigma:.4g}, the median distance between the features of {len(real)} real tokens")
    return sigma
