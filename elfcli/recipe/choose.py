"""The recipe for custom data: what `elf train` chooses if no task, settings file or flag sets it.

From the data: kind, lengths, encoder. From the machine: network and batch. From the length of the run: warm-up,
learning rate, moving average. Every choice is a setting whose origin names what it came from. docs/experiments.md has
the measurements behind the numbers.
"""

from dataclasses import replace
from math import ceil, inf
from typing import Any

import numpy as np

from elfcli.config.cards import Card
from elfcli.config.entries import Problems, SettingOrigin, file_entries
from elfcli.config.presets import preset_path
from elfcli.config.reference import DEFAULT_LAYER
from elfcli.config.resolve import Resolved, changed, check_again
from elfcli.config.schema import SECTION_OF, Config, SamplingPreset
from elfcli.data.buckets import fitting_buckets, positions_needed
from elfcli.data.folder import Examples
from elfcli.data.gaps import ROOM
from elfcli.data.lengths import MAX_SUGGESTED_LENGTH, fitting_lengths
from elfcli.flow.schedules import fitting_noise
from elfcli.recipe.card import most_positions
from elfcli.runs.length import run_length

FROM_DATA, FROM_MACHINE, FROM_LENGTH = "from the data", "from the machine", "from the run's length"
RECIPE, FROM_WEIGHTS, FROM_LATENTS = "recipe for custom data", "from init_from", "from the latents"
"""Origins of what is chosen in this file."""
PAIRS = SamplingPreset(sampling_method="sde", num_sampling_steps=(8,), cfgs=(1.5,), sde_gamma=1.5, candidates=8)
TEXTS = SamplingPreset(sampling_method="sde", num_sampling_steps=(32,), self_cond_scales=(3.0,), sde_gamma=0.75)
GAPS = SamplingPreset(sampling_method="sde", num_sampling_steps=(32,), sde_gamma=1.5, fill_steps=8, fill_gamma=3.0,
                      fill_candidates=32)  # fmt: skip
FREE_FIRST = 0.5  # of a run with gaps: free texts alone, which then are written better, and gaps as well as without
MIN_RECIPE_STEPS, MAX_RECIPE_STEPS, PASSES = 2000, 100_000, 30
"""Length of a run if nothing sets it: PASSES over the data, within these steps."""
MIN_BUCKET_STEPS, MIN_BUCKET_MINUTES = 500, 10.0  # shorter runs lose more to compiling buckets than they gain
SHOWN, SAVES = 5, 10  # evaluations and checkpoints of a run, at least
LEARNING_RATE, BATCH_EXPONENT = 8e-3, 0.146
"""Peak rate of Muon at width 128 and batches of 32 examples, measured on CPUs. It falls with larger widths, as in muP
(Yang and Hu 2021), and rises with the batch so that ELF-B with batches of 512 has the 2e-3 of the authors' recipes."""
CPU_POSITIONS, CPU_BATCH = 2048, 32
ACCELERATOR_POSITIONS, ACCELERATOR_BATCH, ACCELERATOR_STEPS = 2**18, 512, 10_000
"""Largest batches in positions and examples. On accelerators batches of small data are so small that PASSES over it are
ACCELERATOR_STEPS steps, but not below a CPU's batch. On a known card, MAX_RECIPE_STEPS steps take a day at most."""
EMA_SHARE = 20  # the average's horizon is the run's length divided by this


def uses_recipe(resolved: Resolved) -> bool:
    """Return whether a run is on custom data: no task, no file of the reference, and no teacher."""
    of_reference = any(origin.layer == DEFAULT_LAYER for origin in resolved.origins.values())
    distilled = resolved.config.distillation.student_steps is not None
    return resolved.config.data.task is None and not of_reference and not distilled


def is_set(resolved: Resolved, *names: str) -> bool:
    """Return whether any of the settings has a value other than the built-in default."""
    return any(resolved.origins[name].layer != "default" for name in names)


def with_defaults(resolved: Resolved, layer: str, **values: Any) -> Resolved:
    """Set those of the values that no other layer has set. layer: their origin."""
    for name, value in values.items():
        if is_set(resolved, name):
            continue
        if name == "sampling":
            config = resolved.config.model_copy(update={"sampling": value})
            resolved = replace(resolved, config=config, origins=resolved.origins | {"sampling": SettingOrigin(layer)})
        else:
            resolved = changed(resolved, SECTION_OF[name], layer, **{name: value})
    return resolved


def from_weights(resolved: Resolved, theirs: Config) -> Resolved:
    """Take network, encoder and noise from the settings of the weights that training starts from."""
    for part in (theirs.network, theirs.encoder):
        resolved = with_defaults(resolved, FROM_WEIGHTS, **part.model_dump())
    scales = theirs.objective.model_dump(include={"denoiser_noise_scale", "decoder_noise_scale"})
    return with_defaults(resolved, FROM_WEIGHTS, **scales)


def from_data(resolved: Resolved, examples: Examples) -> Resolved:
    """Choose lengths, padding, scores, sampling and what else depends on whether texts have sources."""
    lengths = lengths_of(examples)
    longest, source = fitting_lengths(lengths, resolved.config.data.max_input_length)
    resolved = with_defaults(resolved, RECIPE, latent_mean="measure", latent_std="measure", eval_ppl_model="ngram")
    if resolved.config.training.overfit_examples:
        resolved = overfit_settings(resolved, paired="condition_input_ids" in lengths)
    if resolved.config.data.gaps:
        length = min(longest + ROOM, MAX_SUGGESTED_LENGTH)
        resolved = with_defaults(resolved, FROM_DATA, max_length=length, pad_token="eos", sampling=(GAPS,))
        first = 0.0 if resolved.config.training.init_from else FREE_FIRST
        return with_defaults(resolved, RECIPE, metrics=("gaps",), gaps_after=first)
    if "condition_input_ids" not in lengths:
        resolved = with_defaults(resolved, FROM_DATA, max_length=longest, pad_token="eos", sampling=(TEXTS,))
        return with_defaults(resolved, RECIPE, metrics=("ppl",))
    summaries = np.median(lengths["input_ids"]) < np.median(lengths["condition_input_ids"]) / 2
    resolved = with_defaults(resolved, FROM_DATA, max_length=longest)
    resolved = with_defaults(
        resolved,
        FROM_DATA,
        max_input_length=min(source, max(resolved.config.data.max_length - 8, 1)),
        pad_token="eos",
        metrics=("rouge",) if summaries else ("bleu",),
        sampling=(PAIRS,),
    )
    if resolved.config.training.init_from is None:
        # A word and its translation are then equally far apart in every pair.
        resolved = with_defaults(resolved, RECIPE, text_position=resolved.config.data.max_input_length)
    # As published: a source tells what the text is, through any noise.
    return with_defaults(resolved, RECIPE, label_drop_prob=0.1, denoiser_noise_scale=2.0, decoder_noise_scale=1.0)


def from_latents(resolved: Resolved, width: int) -> Resolved:
    """Choose the noise scales that hide as much of latents of this width as the paper's do of T5-small's.

    Pairs already have those of the published conditional recipe.
    """
    denoiser, decoder = (float(f"{scale:.2g}") for scale in fitting_noise(width))
    return with_defaults(resolved, FROM_LATENTS, denoiser_noise_scale=denoiser, decoder_noise_scale=decoder)


def overfit_settings(resolved: Resolved, paired: bool) -> Resolved:
    """Choose settings for `--overfit`: the run is evaluated on its own training examples, at its end.

    Sources are never dropped, so the unconditional branch is untrained and CFG is turned off.
    """
    if paired:
        unguided = PAIRS.model_copy(update={"cfgs": (1.0,), "candidates": 1})
        resolved = with_defaults(resolved, RECIPE, label_drop_prob=0.0, sampling=(unguided,))
    return with_defaults(resolved, RECIPE, buckets=(), eval_every_epochs=0.0, num_live_samples=0)


def lengths_of(examples: Examples) -> dict[str, np.ndarray]:
    """Return the number of tokens of every row, by column."""
    condition = examples.tokens.condition_input_ids
    sources = {} if condition is None else {"condition_input_ids": condition.lengths()}
    return {"input_ids": examples.tokens.input_ids.lengths()} | sources


def from_machine(
    resolved: Resolved, examples: Examples, backend: str, devices: int, card: Card | None = None
) -> Resolved:
    """Choose network and batch: what a CPU learns in an hour, or an accelerator in a day. card: of the devices, if it
    is known.

    The network stays as it is if its model is named, or if training starts from given weights.
    """
    tokens = int(examples.tokens.input_ids.lengths().sum())
    if resolved.config.training.init_from is None and not is_set(resolved, "model"):
        name = "ELF-XS" if backend == "cpu" else "ELF-B" if tokens > 100_000_000 else "ELF-S"
        entries = file_entries(preset_path("model", name), "model preset", Problems()).entries
        resolved = with_defaults(resolved, FROM_MACHINE, model=name, **{entry.name: entry.value for entry in entries})
        if backend == "cpu":  # of 60 positions, 12 would be prefix
            prefix = ("num_time_tokens", "num_self_cond_cfg_tokens", "num_model_mode_tokens")
            resolved = with_defaults(resolved, RECIPE, **dict.fromkeys(prefix, 1))
    data, training = resolved.config.data, resolved.config.training
    if not is_set(resolved, "batch_size", "global_batch_size"):
        positions, most = CPU_POSITIONS, CPU_BATCH
        if backend != "cpu":
            enough = max(PASSES * len(examples) // ACCELERATOR_STEPS, CPU_BATCH)
            positions, most = ACCELERATOR_POSITIONS, min(ACCELERATOR_BATCH, enough)
        if card:
            positions = min(positions, most_positions(resolved.config, card, devices, MAX_RECIPE_STEPS))
        few = len(examples) // (4 if training.overfit_examples else 2)
        batch = max(min(positions // data.max_length, most, few) // 8 * 8, 8)
        batch = max(min(batch, len(examples)) // devices, 1) * devices
        resolved = with_defaults(resolved, FROM_MACHINE, batch_size=batch)
    steps = MIN_RECIPE_STEPS
    if is_set(resolved, "steps", "epochs"):
        steps = run_length(resolved.config, len(examples)).total_steps
    if steps >= MIN_BUCKET_STEPS and (training.minutes or inf) >= MIN_BUCKET_MINUTES:
        extra = ROOM if data.gaps else 0
        needed = positions_needed(examples.tokens, data.max_length, data.max_input_length, extra)
        resolved = with_defaults(resolved, FROM_DATA, buckets=fitting_buckets(needed, data.max_length))
    return resolved


def learning_rate(config: Config) -> float:
    """Return the peak rate for the network's width and the examples of an optimizer step, to two digits."""
    examples = config.global_batch * config.optimization.grad_accum_steps
    by_width = min(128 / config.network.hidden_size, 1.0)  # at width 64, 0.018 ruined the decoder
    return float(f"{LEARNING_RATE * by_width * (examples / CPU_BATCH) ** BATCH_EXPONENT:.2g}")


def with_measured_steps(resolved: Resolved, steps: int) -> Resolved:
    """Set the number of steps that fit into the run's minutes."""
    layer = f"{FROM_LENGTH}, {resolved.config.training.minutes:g} minutes"
    return changed(resolved, "training", layer, steps=steps)


def from_length(resolved: Resolved, num_examples: int) -> Resolved:
    """Choose steps, warm-up, learning rate and its schedule, moving average, and when to save and to evaluate."""
    config = resolved.config
    per_epoch = run_length(config, num_examples).epoch_steps
    if not is_set(resolved, "steps", "epochs"):
        steps = int(min(max(PASSES * per_epoch, MIN_RECIPE_STEPS), MAX_RECIPE_STEPS))
        resolved = with_defaults(resolved, FROM_LENGTH, steps=steps)
    total = run_length(resolved.config, num_examples).total_steps
    horizon = min(max(total / EMA_SHARE, 1.0), 10_000.0)
    values: dict[str, Any] = {"lr_schedule": "cosine", "ema_decay": round(1 - 1 / horizon, 6)}
    if not is_set(resolved, "warmup_steps", "warmup_epochs"):
        values["warmup_steps"] = min(total // 30, 1000)
    if not is_set(resolved, "lr", "blr", "optimizer"):
        values["lr"] = learning_rate(config)
    if not is_set(resolved, "save_every_epochs", "save_every_steps"):
        values["save_every_steps"] = max(total // SAVES, 1)
    values["eval_every_epochs"] = float(f"{ceil(total / SHOWN) / per_epoch:.6g}")
    return check_again(with_defaults(resolved, FROM_LENGTH, **values))
