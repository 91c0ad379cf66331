"""Lowers every program that computes a network for an accelerator, on meshes of virtual devices, without one. For CUDA
JAX's plugin is needed.

python tests/lower_run.py tpu 2 8
"""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from elfcli.config.resolve import resolve
from elfcli.diagnosis import held_out, probe
from elfcli.flow import sampler
from elfcli.models.build import elf_shape
from elfcli.models.encoder import Encoder, encode_with
from elfcli.models.gpt2 import Gpt2Shape
from elfcli.models.layers import abstract
from elfcli.models.t5 import T5Encoder, T5Shape
from elfcli.optimizer import make_optimizer
from elfcli.parallel.mesh import by_example, make_mesh, replicate, state_shardings
from elfcli.sampling import trace
from elfcli.sampling.generate import (
    SamplerArrays,
    SamplerStatics,
    encode_batch,
    encoding_of,
    sample_batch,
    traced_inputs,
)
from elfcli.sampling.settings import SamplingSetting
from elfcli.scoring import judge
from elfcli.training.step import init_state, make_train_step, step_rates

SETTINGS = ["depth=1", "hidden_size=32", "num_heads=2", "bottleneck_dim=8", "batch_size=32", "max_length=128",
            "max_input_length=64", "encoder_model_name=t5", "warmup_steps=0"]  # fmt: skip
B, S, VOCAB = 32, 128, 50
KERNELS = {"tpu": ("tpu", jnp.float32, "tpu_custom_call"), "cuda": ("cudnn", jnp.bfloat16, "CustomSPMDPartitioning")}
"""Attention kernel by platform, the type that it takes, and the name of the call in the lowered program: JAX leaves the
division of cuDNN's attention among devices to a later step of the compiler."""


def programs(mesh, kernel, dtype):
    """Yield (name, lowering) of each program."""
    t5 = T5Shape(VOCAB, 16, 8, 32, 1, 2, attention=kernel, dtype=dtype)
    encoder = Encoder(replicate(zeros(abstract(T5Encoder, t5)), mesh), encode_with(t5), 16, VOCAB)
    ids = np.zeros((B, S), np.int32)
    cond, valid = np.arange(S) < np.full((B, 1), 8), np.ones((B, S), bool)
    for kind, sets in (("training step", []), ("distillation step", ["student_steps=4", "teacher=unread"])):
        config = resolve(sets=[*SETTINGS, *sets], environ={}).config
        shape = replace(elf_shape(config, 16, VOCAB, "tpu"), attention=kernel, dtype=dtype)
        init = partial(init_state, shape, make_optimizer(config.optimization, shape.dtype), 0)
        state = jax.jit(init, out_shardings=state_shardings(jax.eval_shape(init), mesh))()
        rows = {"input_ids": ids[None], "cond_mask": cond[None], "valid_mask": valid[None]}
        batch = jax.device_put(rows, by_example(mesh, axis=1))
        teacher = (state.params,) if sets else ()
        step = make_train_step(config, shape, encoder, mesh)
        yield kind, step.trace(state, encoder.params, batch, step_rates(config, 1e-3), *teacher)
    program = SamplerStatics(shape, encoder.apply, config.objective, mesh, 3)
    weights = replicate(state.params, mesh)
    yield "encoder", probe.encoded.trace(program, encoder.params, ids, np.ones((B, S, S), bool))
    guidance = sampler.Guidance(np.float32(1), np.float32(1))
    key = np.asarray(jax.random.key_data(jax.random.key(0)))
    tried = probe.Probe(ids, cond, valid, np.zeros((B, S, 16), np.float32), key, guidance)
    yield "held-out loss", held_out.losses.trace(program, weights, tried)
    for name in ("denoised", "recovered"):
        yield f"doctor: {name}", getattr(probe, name).trace(program, weights, tried, np.float32(0.5))
    yield "doctor: reconstructed", probe.reconstructed.trace(program, weights, tried)
    setting = SamplingSetting(num_sampling_steps=3)
    sharded = jax.device_put((ids, cond, valid, np.arange(B, dtype=np.int32)), by_example(mesh))
    inputs = SamplerArrays(weights, encoder.params, *sharded, **traced_inputs(config, setting, 0))
    yield "sampling: conditions", encode_batch.trace(encoding_of(program), inputs)
    condition = sampler.Condition(cond, np.zeros((B, S, 16), np.float32))
    yield "sampling", sample_batch.trace(program, inputs, jax.device_put(condition, by_example(mesh)))
    yield "trace", trace.begin.trace(program, inputs)
    gpt2 = Gpt2Shape(VOCAB, 128, 16, 1, 2, 32)
    network = replicate(zeros(abstract(gpt2.network, gpt2)), mesh)
    scored = judge.JudgeStatics(features, gpt2, mesh)
    yield "judge", judge._applied.trace(scored, network, *jax.device_put((ids, valid), by_example(mesh)))


def features(model, ids_BxT, mask_BxT):
    return model(ids_BxT, mask_BxT)


def zeros(network):
    """Parameters of the network, all zero."""
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), nnx.to_pure_dict(nnx.state(network)))


if __name__ == "__main__":
    platform, *counts = sys.argv[1:]
    kernel, dtype, name_of_kernel = KERNELS[platform]
    for count in map(int, counts):
        for name, traced in programs(make_mesh(devices=jax.devices()[:count]), kernel, dtype):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            print(f"{count} devices, {name}: {text.count(name_of_kernel)} kernels")
