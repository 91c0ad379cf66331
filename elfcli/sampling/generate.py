"""From a checkpoint to texts: encode the conditions, sample latents, decode tokens.

Every sample has its own noise and, as in the reference, its own grid of times. Both are keyed by (seed, sample number),
so samples do not depend on the batch size, the devices or the processes. Settings share one compilation: scales, gamma
and steps are traced.
Shapes: B batch, S sequence, E latent width, M times of the longest setting.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from elfcli.config.schema import Config, ObjectiveSettings
from elfcli.data.batches import Batch, collate
from elfcli.data.templates import read_gaps
from elfcli.data.tokenizers import begins_with_eos, decoded, eos_id, pad_id
from elfcli.errors import InputError
from elfcli.flow import sampler
from elfcli.flow.known_text import guided_by
from elfcli.flow.postprocess import text_tokens
from elfcli.flow.schedules import even_grid, time_grid
from elfcli.models.elf import ELF, ElfShape
from elfcli.models.encoder import encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.parallel.agree import assert_same_on_all
from elfcli.parallel.hashes import digest
from elfcli.parallel.mesh import by_row, everywhere, jit_on_mesh, make_mesh, round_up_to_devices
from elfcli.sampling.candidates import choice_of, draw_keys
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting, check_sampling_setting
from elfcli.sampling.sources import Sources


@dataclass(frozen=True)
class SamplerStatics:
    """Static arguments of `sample_batch`, which is compiled for each of their values. encode: `Encoder.apply`.

    longest: the most steps of the settings that share the compilation. use_cfg, use_w: as of `sampler.make_predict`.
    solver: function of flow/sampler.py, `euler`, `multistep` or `refine`. resample_noise: as of `sampler.refine`.
    guided: whether known text guides a network that was not trained with gaps.
    """

    shape: ElfShape
    encode: Callable[..., Array]
    objective: ObjectiveSettings
    mesh: Mesh
    longest: int
    use_cfg: bool = False
    use_w: bool = False
    solver: str = "euler"
    resample_noise: bool = False
    guided: bool = False


class SamplerArrays(NamedTuple):
    """Traced arguments of `sample_batch`."""

    params: Any
    encoder_params: Any
    ids_BxS: Array  # int32: the conditions, padded
    cond_BxS: Array  # bool: position lies in the condition
    valid_BxS: Array  # bool: position lies before the padding
    numbers_B: Array  # int32: number of each sample, the key of its draws
    noise_key: Array  # key data, uint32
    grid_key: Array  # key data, uint32
    num_steps: Array  # int32, at most the statics' `longest`
    even_M: Array  # times of a grid without draws, as of `even_grid`; NaN: logit-normal draws
    gamma: Array  # 0: the ODE
    guidance: sampler.Guidance
    latent_mean: Array
    latent_std: Array


@dataclass(frozen=True)
class Options:
    """Options of a generation. batch_size: in texts. longest: as of SamplerStatics; None: the setting's steps."""

    seed: int = 0
    batch_size: int = 64
    longest: int | None = None


class Part(NamedTuple):
    """One batch: the number of its first text, its sources, and the lengths of their conditions."""

    first: int
    sources: Sources
    shift_B: np.ndarray
    inputs: SamplerArrays


def generate(
    model: LoadedModel,
    conditions: Sequence[Sequence[int]],
    setting: SamplingSetting,
    options: Options = Options(),
    update: Callable[[int], None] = lambda done: None,
) -> Iterator[str]:
    """Yield one text per condition (token ids; none for unconditional models), in order. update: as of `outputs`."""
    rows = outputs(model, Sources(conditions, []), setting, options, update)
    return (row["generated"] for row in rows)


def outputs(
    model: LoadedModel,
    sources: Sources,
    setting: SamplingSetting,
    options: Options = Options(),
    update: Callable[[int], None] = lambda done: None,
) -> Iterator[dict]:
    """Yield {"generated": text} per source, in order, with the texts of its `gaps` if it is a template.

    update(done): called after each batch with the number of texts done.
    """
    program, running = program_of(model, setting, options, sources), None
    choose = choice_of(model, setting, sources)
    for part in chain(sampling_batches(model, sources, setting, options), [None]):
        # The device works on this batch while the texts of the one before are decoded and compared.
        started = part and (part, sample_candidates(program, [*candidates_of(part, setting, options)]))
        if running is not None:
            finished, tokens = running
            candidates = [decoded_rows(model, np.asarray(one), finished) for one in tokens]
            yield from (rows[choose([row["generated"] for row in rows])] for rows in zip(*candidates, strict=True))
            update(finished.first + len(finished.sources.conditions))
        running = started


def sample_candidates(program: SamplerStatics, parts: Sequence[Part]) -> list[Array]:
    """Return the tokens (B, S) of each candidate of a batch; the condition is encoded once."""
    condition = encode_batch(encoding_of(program), parts[0].inputs)
    return [sample_batch(program, part.inputs, condition) for part in parts]


def sample_rows(
    model: LoadedModel,
    sources: Sources,
    setting: SamplingSetting,
    options: Options = Options(),
    update: Callable[[int], None] = lambda done: None,
) -> list[dict]:
    """Return a row per sample: `id`, `generated`, `gaps` of templates, and what the sources' rows hold. update(done):
    as of `outputs`."""
    assert_same_on_all("input", {"samples": len(sources.rows), "hash": digest(sources.conditions)})
    written = outputs(model, sources, setting, options, update)
    return [{"id": row["id"]} | output | row for row, output in zip(sources.rows, written, strict=True)]


def program_of(model: LoadedModel, setting: SamplingSetting, options: Options, sources: Sources) -> SamplerStatics:
    """Return the static arguments for a setting. Raises InputError if the model does not allow the setting."""
    check_sampling_setting(model.config, setting)
    check_sources(model.config, setting, sources)
    guided = known_text_guides(model.config, sources)
    longest, flags = options.longest or setting.num_sampling_steps, program_flags(model.config, setting)
    return SamplerStatics(
        model.shape, model.encoder.apply, model.config.objective, make_mesh(), longest, *flags, guided
    )


def known_text_guides(config: Config, sources: Sources) -> bool:
    """Return whether known text guides the network, which was then not trained with gaps."""
    return bool(sources.frames) and not config.data.gaps


def check_sources(config: Config, setting: SamplingSetting, sources: Sources) -> None:
    """Raise InputError if what is sampled does not allow a setting."""
    if setting.candidates > 1 and not any(map(len, sources.conditions)):
        raise InputError(f"--candidates {setting.candidates}: needs sources or templates, not free text")
    if setting.sampling_method == "refine" and known_text_guides(config, sources):
        raise InputError("--sampler refine: cannot continue or fill, because all its passes are at t = 0: use sde or "
                         "ode")  # fmt: skip


def sampling_batches(
    model: LoadedModel, sources: Sources, setting: SamplingSetting, options: Options
) -> Iterator[Part]:
    """Yield the batches, all of the same size."""
    mesh, total = make_mesh(), len(sources.conditions)
    batch_size = round_up_to_devices(min(options.batch_size, max(total, 1)))
    shared = traced_inputs(model.config, setting, options.seed, options.longest)
    for first in range(0, total, batch_size):
        ours = sources.between(first, first + batch_size)
        examples = ours.examples()
        # Padded, so that a short last batch needs no other compilation.
        batch = padded_batch(model, [*examples, *[{"input_ids": ()}] * (batch_size - len(examples))])
        numbers = np.arange(first, first + batch_size, dtype=np.int32)
        rows = (batch["input_ids"], batch["cond_mask"], batch["valid_mask"], numbers)
        ids, cond, valid, numbers_B = (by_row(row, mesh) for row in rows)
        inputs = SamplerArrays(model.params, model.encoder.params, ids, cond, valid, numbers_B, **shared)
        yield Part(first, ours, batch["cond_mask"].sum(axis=1), inputs)


def padded_batch(model: LoadedModel, examples: list) -> Batch:
    """Return examples (token ids by column) as arrays (B, S), padded as in training."""
    pads = model.config.data.pad_token == "pad"
    batch = collate(examples, **lengths(model.config), pad_id=(pad_id if pads else eos_id)(model.tokenizer))
    if pads:  # a model that never saw the end of a text writes on after known text
        batch["cond_mask"] &= batch["valid_mask"]
    return batch


def candidates_of(part: Part, setting: SamplingSetting, options: Options) -> Iterator[Part]:
    """Yield the batch, then the same with the draws of each further candidate."""
    yield part
    for candidate in range(1, setting.candidates):
        noise_key, grid_key = draw_keys(options.seed, candidate)
        yield part._replace(inputs=part.inputs._replace(noise_key=noise_key, grid_key=grid_key))


def lengths(config: Config) -> dict[str, Any]:
    """Return the lengths that collation and decoding take."""
    return {"max_length": config.data.max_length, "max_input_length": config.data.max_input_length}


def decoded_rows(model: LoadedModel, tokens_BxS: np.ndarray, part: Part) -> list[dict]:
    """Return the texts of a batch as `generated`, with the `gaps` of templates."""
    clean_up, (conditions, _, templates, frames) = model.config.evaluation.clean_up, part.sources
    if not templates:
        ends: dict[str, Any] = {"eos_id": eos_id(model.tokenizer), "pad_id": pad_id(model.tokenizer),
                "eos_begins": begins_with_eos(model.tokenizer)}  # fmt: skip
        texts = text_tokens(tokens_BxS, part.shift_B, **lengths(model.config), **ends)[: len(conditions)]
        return [{"generated": text} for text in decoded(model.tokenizer, texts, clean_up)]
    filled = []
    for template, frame, tokens in zip(templates, frames, tokens_BxS.tolist(), strict=False):
        gaps = read_gaps(model.tokenizer, template, frame, tokens, clean_up)
        filled.append({"generated": template.filled(gaps), "gaps": gaps})
    return filled


def passes(config: Config, setting: SamplingSetting) -> tuple[bool, bool]:
    """Return (use_cfg, use_w) of the program for a setting."""
    extrapolates = config.objective.self_cond_prob > 0 and not config.network.num_self_cond_cfg_tokens
    return setting.cfg != 1 and config.data.max_input_length > 0, setting.self_cond_scale != 1 and extrapolates


def program_flags(config: Config, setting: SamplingSetting) -> tuple[bool, bool, str, bool]:
    """Return (use_cfg, use_w, solver, resample_noise) of the program for a setting."""
    method = setting.sampling_method
    resamples = method == "refine" and setting.resample_noise
    return *passes(config, setting), method if method in ("multistep", "refine") else "euler", resamples


def traced_inputs(config: Config, setting: SamplingSetting, seed: int, longest: int | None = None) -> dict[str, Any]:
    """Return the fields of SamplerArrays that all batches share, as numpy arrays. longest: as of Options."""
    longest = longest or setting.num_sampling_steps
    noise_key, grid_key = draw_keys(seed)
    # Refinement only counts the steps of its grid; a trace shows them as the share of passes done.
    schedule = "uniform" if setting.sampling_method == "refine" else setting.time_schedule
    fields = {
        "noise_key": noise_key,
        "grid_key": grid_key,
        "num_steps": jnp.int32(setting.num_sampling_steps),
        "even_M": even_grid(schedule, setting.num_sampling_steps, longest, setting.time_shift),
        "gamma": jnp.float32(setting.sde_gamma if setting.sampling_method == "sde" else 0.0),
        "guidance": sampler.Guidance(jnp.float32(setting.cfg), jnp.float32(setting.self_cond_scale)),
        "latent_mean": jnp.float32(config.encoder.latent_mean),
        "latent_std": jnp.float32(config.encoder.latent_std),
    }
    return jax.tree.map(np.asarray, fields)


class Flow(NamedTuple):
    """What solves one batch from noise to latents. noise_at(i): noise of step i; -1: where sampling starts.

    condition: what is not denoised; nothing where known text only guides.
    """

    model: ELF
    condition: sampler.Condition
    predict: sampler.Predict
    noise_at: sampler.Noise
    grid_BxM: Array


def encode_condition(program: SamplerStatics, inputs: SamplerArrays) -> sampler.Condition:
    """Return the conditions with their latents."""
    nothing_dropped = jnp.zeros(len(inputs.ids_BxS), bool)
    mask_BxSxS = encoder_mask(inputs.cond_BxS, inputs.valid_BxS, nothing_dropped)
    latents_BxSxE = program.encode(inputs.encoder_params, inputs.ids_BxS, mask_BxSxS)
    return sampler.Condition(inputs.cond_BxS, (latents_BxSxE - inputs.latent_mean) / inputs.latent_std)


def flow_of(program: SamplerStatics, inputs: SamplerArrays, condition: sampler.Condition) -> Flow:
    """Return the guided network, and the noise and times of each sample, drawn by seed and number."""
    noise_key, grid_key = map(jax.random.wrap_key_data, (inputs.noise_key, inputs.grid_key))
    objective, shape = program.objective, condition.latents_BxSxE.shape[1:]
    model = nnx.merge(graphdef_of(ELF, program.shape), inputs.params)

    def noise_at(i: Any) -> Array:
        keys_B = jax.vmap(lambda n: jax.random.fold_in(jax.random.fold_in(noise_key, n), i + 1))(inputs.numbers_B)
        noise_BxSxE = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_B)
        return noise_BxSxE * objective.denoiser_noise_scale

    def grid_of(number: Array) -> Array:
        key = jax.random.fold_in(grid_key, number)
        return time_grid(key, inputs.num_steps, inputs.even_M, objective.denoiser_p_mean, objective.denoiser_p_std)

    given = condition._replace(mask_BxS=jnp.zeros_like(condition.mask_BxS)) if program.guided else condition
    predict = sampler.make_predict(
        model, given, inputs.guidance, objective.t_eps, use_cfg=program.use_cfg, use_w=program.use_w
    )
    if program.guided:
        predict = guided_by(predict, condition, objective.denoiser_noise_scale, objective.t_eps)
    return Flow(model, given, predict, noise_at, jax.vmap(grid_of)(inputs.numbers_B))


def step_of(program: SamplerStatics, inputs: SamplerArrays, flow: Flow) -> sampler.Step:
    """Return the step of the program's solver."""
    if program.solver == "refine":
        return sampler.refine(flow.predict, flow.condition, flow.noise_at, program.resample_noise)
    if program.solver == "multistep":
        return sampler.multistep(flow.predict, flow.condition, flow.grid_BxM)
    return sampler.euler(flow.predict, flow.condition, flow.grid_BxM, flow.noise_at, inputs.gamma)


def encoding_of(program: SamplerStatics) -> SamplerStatics:
    """Return the static arguments of `encode_batch`, the same for all settings."""
    return replace(program, longest=0, use_cfg=False, use_w=False, solver="euler", resample_noise=False, guided=False)


@jit_on_mesh
def encode_batch(program: SamplerStatics, inputs: SamplerArrays) -> sampler.Condition:
    """Return the conditions of one batch with their latents, each device those of its own rows."""
    return encode_condition(program, inputs)


@jit_on_mesh
def sample_batch(program: SamplerStatics, inputs: SamplerArrays, condition: sampler.Condition) -> Array:
    """Return the tokens (B, S) of one batch. Each device computes its own rows; all devices receive all tokens."""
    flow = flow_of(program, inputs, condition)
    step = step_of(program, inputs, flow)
    z_BxSxE = sampler.integrate(step, flow.noise_at(-1), flow.condition, flow.grid_BxM).z_BxSxE
    tokens_BxS = sampler.decode(flow.model, z_BxSxE, flow.condition, inputs.guidance)
    return everywhere(program, tokens_BxS)
