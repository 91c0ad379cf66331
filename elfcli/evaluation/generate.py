"""From a checkpoint to texts: conditions in, sampled latents, decoded tokens, texts out.

Every sample has draws of its own, keyed by (seed, sample number), so that the same samples come out whatever the
batch size, and however many devices and processes share it. All settings of one shape share one compilation: scales,
gamma and the grid are traced.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from elfcli.config.schema import Config
from elfcli.data.batches import collate
from elfcli.data.folder import eos_id, load_tokenizer, pad_id, vocab_size
from elfcli.errors import InputError
from elfcli.evaluation.ways import Setting
from elfcli.flow import sampler
from elfcli.flow.postprocess import text_tokens
from elfcli.flow.schedules import time_grid
from elfcli.hub.encoder import load_encoder
from elfcli.hub.reference import check_tree
from elfcli.hub.sources import Source, check_latents, check_vocabulary, config_of, open_source
from elfcli.models.build import arithmetic, elf_shape
from elfcli.models.elf import ELF, ElfShape
from elfcli.models.encoder import Encoder, encoder_mask
from elfcli.models.layers import graphdef_of
from elfcli.parallel.agree import by_first, first_goes_ahead, require_same
from elfcli.parallel.backend import prepare
from elfcli.parallel.mesh import by_row, digest, make_mesh, on_devices, rounded


@dataclass(frozen=True)
class Model:
    """A trained network with all it needs to make text."""

    config: Config
    shape: ElfShape
    params: dict
    encoder: Encoder
    tokenizer: Any
    source: Source

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def step(self) -> int:
        return self.source.step

    @property
    def folder(self) -> Path:
        """Where results go by default: the run's own folder, or `results/NAME` for weights from elsewhere."""
        if self.source.kind == "run" and self.source.folder is not None:
            return self.source.folder
        return Path("results") / self.name.rstrip("/").replace("@", "/").split("/")[-1]


def load_model(
    checkpoint: str | Path,
    *,
    ema: bool = True,
    step: int | None = None,
    task: str | None = None,
    model: str | None = None,
    files: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
) -> Model:
    """The model of any source that `open_source` takes, its newest checkpoint or that of `step`, EMA weights or raw.

    task, model, files and sets give or change the settings, as `config_of` says. InputError where the weights,
    the settings, the tokenizer and the encoder do not go together.
    """
    prepare()
    with first_goes_ahead():  # a download is there for the others of its host
        source = open_source(checkpoint, ema=ema, step=step)
    newest = by_first(lambda: source.step)
    if source.step != newest:  # of a run that goes on while it is sampled
        source = open_source(checkpoint, ema=ema, step=newest)
    config = config_of(source, task=task, model=model, files=files, sets=sets)
    name = source.tokenizer or config.data.tokenizer_name or config.encoder.encoder_model_name
    tokenizer = load_tokenizer(name)
    check_vocabulary(source, name, vocab_size(tokenizer))
    encoder = load_encoder(config.encoder, vocab_size(tokenizer), *arithmetic(config))
    check_latents(source, config.encoder.encoder_model_name, encoder.dim)
    shape = elf_shape(config, encoder.dim, vocab_size(tokenizer))
    check_tree(source.params, shape)
    encoder = replace(encoder, params=on_devices(encoder.params))
    params = on_devices(source.params)
    return Model(config, shape, params, encoder, tokenizer, source)


def generate(
    model: Model,
    conditions: Sequence[Sequence[int]],
    setting: Setting,
    *,
    seed: int = 0,
    batch_size: int = 64,
    longest: int | None = None,
    update: Callable[[int], None] = lambda done: None,
) -> Iterator[str]:
    """Texts in order, one per condition (token ids; none for unconditional models).

    longest: steps of the longest setting that is to share this compilation. update(done) is called per batch.
    """
    config, tokenizer = model.config, model.tokenizer
    pads, eos = pad_id(tokenizer), eos_id(tokenizer)
    fill = pads if config.data.pad_token == "pad" else eos
    lengths = {"max_length": config.data.max_length, "max_input_length": config.data.max_input_length}
    grid_key, noise_key = jax.random.split(jax.random.key(seed))
    objective = config.objective
    grid = time_grid(
        grid_key, setting.steps, setting.time_schedule, objective.denoiser_p_mean, objective.denoiser_p_std
    )
    grid = jnp.pad(grid, (0, (longest or setting.steps) - setting.steps), constant_values=1.0)
    require_same("input", {"samples": len(conditions), "hash": digest(conditions)})
    mesh, batch_size = make_mesh(), rounded(min(batch_size, max(len(conditions), 1)))
    traced = jax.tree.map(
        np.asarray,
        (
            (jnp.float32(config.encoder.latent_mean), jnp.float32(config.encoder.latent_std)),
            jax.random.key_data(noise_key),
            grid,
            jnp.float32(setting.gamma if setting.sampler == "sde" else 0.0),
            sampler.Guidance(jnp.float32(setting.cfg), jnp.float32(setting.w)),
        ),
    )
    for first in range(0, len(conditions), batch_size):
        part = conditions[first : first + batch_size]
        # A short last batch is filled up, so that it needs no compilation of its own.
        filled = [*part, *[()] * (batch_size - len(part))]
        examples = [{"condition_input_ids": np.asarray(c, np.int32), "input_ids": ()} for c in filled]
        batch = collate(examples, **lengths, pad_id=fill)
        tokens = sample_batch(
            (model.shape, model.encoder.apply, objective.denoiser_noise_scale, objective.t_eps, mesh),
            (setting.cfg != 1 and config.data.max_input_length > 0, setting.w != 1),
            (model.params, model.encoder.params),
            [by_row(batch[name], mesh) for name in ("input_ids", "cond_mask", "valid_mask")],
            by_row(np.arange(first, first + batch_size), mesh),
            traced,
        )
        shift = batch["cond_mask"].sum(axis=1)
        rows = text_tokens(np.asarray(tokens), shift, **lengths, eos_id=eos, pad_id=pads)
        yield from tokenizer.batch_decode(rows[: len(part)], skip_special_tokens=True)
        update(first + len(part))


@partial(jax.jit, static_argnums=(0, 1))
def sample_batch(static, switches, params, batch, numbers_B, traced):
    """Tokens (B, S) of one batch, shared out over the devices by its rows; every device gets all tokens."""
    shape, encode, noise_scale, t_eps, mesh = static
    use_cfg, use_w = switches
    ids, cond, valid = batch
    (mean, std), noise_key, grid, gamma, guidance = traced
    noise_key = jax.random.wrap_key_data(noise_key)
    model = nnx.merge(graphdef_of(ELF, shape), params[0])
    on_mesh = partial(jax.sharding.use_abstract_mesh, mesh.abstract_mesh)  # a kernel runs on each device
    with on_mesh():
        latents = encode(params[1], ids, encoder_mask(cond, valid, jnp.zeros(len(ids), bool)))
    condition = sampler.Condition(cond, (latents - mean) / std)

    def noise_at(i):
        """Noise of step i; step -1 is where sampling starts."""
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.fold_in(noise_key, n), i + 1))(numbers_B)
        return jax.vmap(lambda key: jax.random.normal(key, latents.shape[1:]))(keys) * noise_scale

    predict = sampler.make_predict(model, condition, guidance, t_eps, use_cfg=use_cfg, use_w=use_w)
    with on_mesh():
        z, _ = sampler.solve(predict, noise_at(-1), condition, grid, noise_at, gamma)
        tokens = sampler.decode(model, z, guidance)
    return jax.lax.with_sharding_constraint(tokens, NamedSharding(mesh, PartitionSpec()))


def encode_conditions(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of source texts. InputError for an unconditional model."""
    if not model.config.data.max_input_length:
        raise InputError(f"{model.name}: an unconditional model takes no input; give --num-samples instead")
    return model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
