"""The programs that `elf plan` compiles: the training step and the sampler, with shapes in place of arrays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from elfcli.config.resolve import Resolved, changed
from elfcli.config.schema import Config
from elfcli.data.folder import load_examples
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import InputError
from elfcli.flow.sampler import Condition
from elfcli.models.build import arithmetic, elf_shape
from elfcli.models.elf import ElfShape, abstract_params
from elfcli.models.encoder import Encoder, apply_table, encode_with
from elfcli.models.layers import abstract
from elfcli.optimizer import make_optimizer
from elfcli.parallel.mesh import by_example, make_mesh, needed_fsdp
from elfcli.planning.chips import Machine
from elfcli.sampling.generate import SamplerArrays, SamplerStatics, program_flags, sample_batch, traced_inputs
from elfcli.sampling.settings import SamplingSetting
from elfcli.training.inputs import tokenizer_of
from elfcli.training.memory import abstract_batch, abstract_teacher
from elfcli.training.step import device_group, init_state, make_train_step, step_rates
from elfcli.training.timing import StepRunner
from elfcli.weights.encoder import encoder_config, known_encoder
from elfcli.weights.published import VOCABULARY


@dataclass(frozen=True)
class Planned:
    """A program to compile. lower() returns its lowered form. executions(compiled) draws arguments on local devices
    and returns a function that executes the program once and returns an array of its result."""

    lower: Callable[[], Any]
    executions: Callable[[Any], Callable[[], Any]]
    fsdp: int = 1


def look_at_data(config: Config) -> tuple[int, int | None, tuple[str, ...]]:
    """Return (size of the vocabulary, T5's without data; number of examples, None without local data; notes)."""
    notes, count, tokens = [], None, None
    try:
        if config.data.data_path:
            examples = load_examples(config.data.data_path, "train")
            count = len(examples)
            tokens = vocab_size(load_tokenizer(tokenizer_of(config, examples)))
    except InputError:
        notes.append(f"data {config.data.data_path} is not available locally")
    if tokens is None and config.data.tokenizer_name is not None:
        tokens = vocab_size(load_tokenizer(config.data.tokenizer_name))
    if tokens is None:
        notes.append(f"assumed T5's vocabulary of {VOCABULARY:,}")
    if config.data.buckets:
        notes.append("planned for a step of max_length; with buckets most are shorter")
    return tokens or VOCABULARY, count, tuple(notes)


def network_of(config: Config, platform: str, vocabulary: int) -> tuple[Config, Encoder, ElfShape]:
    """Return (settings, encoder, shape). Latents that the run would measure get numbers: no cost depends on them."""
    plain = config.encoder.model_copy(update={"latent_mean": 0.0, "latent_std": 1.0})
    config = config.model_copy(update={"encoder": plain})
    encoder = abstract_encoder(config, vocabulary, platform)
    return config, encoder, elf_shape(config, encoder.dim, vocabulary, platform)


def abstract_encoder(config: Config, vocabulary: int, platform: str) -> Encoder:
    """Return the frozen encoder with shapes in place of weights. Raise InputError if its shape is unknown."""
    cfg = config.encoder
    if cfg.encoder_model_name == "embedding":
        table = jax.ShapeDtypeStruct((vocabulary, cfg.embedding_dim), jnp.float32)
        return Encoder(table, apply_table, cfg.embedding_dim, vocabulary)
    known = known_encoder(cfg.encoder_model_name)
    dtype, attention = arithmetic(config, platform)
    shape = replace(known or encoder_config(cfg.encoder_model_name)[0], dtype=dtype, attention=attention)
    params = nnx.to_pure_dict(nnx.state(abstract(shape.network, shape)))
    return Encoder(params, encode_with(shape), shape.width, shape.vocab_size)


def random_arguments(shapes: Any, shardings: Any, vocabulary: int) -> Any:
    """Return arrays of these shapes: small random numbers, random token ids, and masks that exclude nothing. shardings:
    those of a compiled program, None for an argument that it does not use."""
    draw, arrays = np.random.default_rng(0), []
    layouts = jax.tree.leaves(shardings, is_leaf=lambda one: one is None)
    for shape, sharding in zip(jax.tree.leaves(shapes), layouts, strict=True):
        if shape.dtype == bool:
            values = np.ones(shape.shape, bool)
        elif jnp.issubdtype(shape.dtype, jnp.integer):
            values = draw.integers(0, vocabulary, shape.shape)
        else:
            values = 0.02 * draw.standard_normal(shape.shape, np.float32)
        arrays.append(jax.device_put(values.astype(shape.dtype), sharding))
    return jax.tree.unflatten(jax.tree.structure(shapes), arrays)


def training_step(config: Config, machine: Machine, vocabulary: int) -> Planned:
    """Return the optimizer step of `elf train`, with the number of devices that share a copy of the state as fsdp."""
    config, encoder, shape = network_of(config, machine.platform, vocabulary)
    init = partial(init_state, shape, make_optimizer(config.optimization, shape.dtype), 0)
    state = jax.eval_shape(init)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    fsdp = config.training.fsdp_devices or needed_fsdp(count, len(machine.devices), machine.memory)
    mesh = make_mesh(fsdp, devices=machine.devices)
    if group_size := device_group(config, len(machine.devices)):
        config = changed(Resolved(config, {}), "objective", None, group_size=group_size).config
    step = make_train_step(config, shape, encoder, mesh)
    rest = (encoder.params, abstract_batch(config), step_rates(config, 1e-3), *abstract_teacher(config, state))

    def executions(compiled: Any) -> StepRunner:
        where, *others = compiled.input_shardings[0]
        first_state = jax.jit(init, out_shardings=where)()
        return StepRunner(compiled, first_state, *random_arguments(rest, tuple(others), vocabulary))

    return Planned(partial(step.lower, state, *rest), executions, fsdp)


def sampling_batch(
    config: Config, machine: Machine, vocabulary: int, setting: SamplingSetting, batch_size: int
) -> Planned:
    """Return the program of `elf sample` that samples one batch of texts."""
    config, encoder, shape = network_of(config, machine.platform, vocabulary)
    mesh, S = make_mesh(devices=machine.devices), config.data.max_length
    rows, everywhere = by_example(mesh), NamedSharding(mesh, PartitionSpec())

    def whole(tree: Any) -> Any:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), tree)

    def row(dtype: Any, *sizes: int) -> Any:
        return jax.ShapeDtypeStruct((batch_size, *sizes), dtype, sharding=rows)

    fields = traced_inputs(config, setting, 0)
    longest = setting.num_sampling_steps
    program = SamplerStatics(
        replace(shape, unroll=False), encoder.apply, config.objective, mesh, longest, *program_flags(config, setting)
    )
    batch = row(jnp.int32, S), row(bool, S), row(bool, S), row(jnp.int32)
    # The condition is already encoded, so that the encoder's weights are not used.
    inputs = SamplerArrays(whole(abstract_params(shape)), (), *batch, **whole(fields))
    condition = Condition(row(bool, S), row(jnp.float32, S, encoder.dim))

    def executions(compiled: Any) -> Callable[[], Any]:
        random_inputs, latents = random_arguments((inputs, condition), compiled.input_shardings[0], vocabulary)
        # The number of steps and the grid are those of the setting, because the running time depends on them.
        return partial(compiled, random_inputs._replace(**fields), latents)

    return Planned(partial(sample_batch.lower, program, inputs, condition), executions)
