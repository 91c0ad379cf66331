"""Sampling against its networks' passes alone, and how often ten settings compile.

    python benchmarks/sampling.py [--steps 32] [--repeat 3]

ELF-B, batch 4, length 128, float32: the time of sampling a batch (ODE, no guidance of the condition) over that of
`steps` plain forward passes, which alternate; the decoding pass is in the time of sampling alone.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from elfcli.config.resolve import resolve
from elfcli.models.build import elf_shape
from elfcli.models.elf import ELF, init_params
from elfcli.models.layers import graphdef_of
from elfcli.parallel.mesh import make_mesh
from elfcli.sampling.generate import (
    SamplerArrays,
    SamplerStatics,
    encode_batch,
    encoding_of,
    sample_batch,
    traced_inputs,
)
from elfcli.sampling.settings import SamplingSetting
from elfcli.ui.quiet import keep_memory
from elfcli.weights.encoder import load_encoder

SETS = ["max_length=128", "max_input_length=0", "encoder_model_name=embedding", "embedding_dim=512"]
VOCAB, BATCH = 32100, 4
TEN = [(8, 1.0, 0.0), (16, 1.0, 0.0), (32, 1.0, 0.0), (8, 2.0, 0.0), (16, 3.0, 0.0), (32, 3.0, 1.5), (16, 3.0, 1.0),
       (8, 1.5, 1.5), (32, 0.5, 0.5), (24, 2.5, 1.0)]  # (steps, w, gamma)  # fmt: skip


def parts(config):
    encoder = load_encoder(config.encoder, VOCAB)
    shape = elf_shape(config, encoder.dim, VOCAB)
    params = jax.jit(lambda key: init_params(shape, key))(jax.random.key(0))
    return encoder, shape, params


def sampler(config, encoder, shape, params, longest):
    S = config.data.max_length
    batch = jnp.ones((BATCH, S), jnp.int32), jnp.zeros((BATCH, S), bool), jnp.ones((BATCH, S), bool)

    def sample(steps, w=1.0, gamma=0.0):
        setting = SamplingSetting("sde" if gamma else "ode", steps, 1.0, w, "uniform", gamma)
        ways = passes(config, setting)
        program = SamplerStatics(shape, encoder.apply, config.objective, make_mesh(), longest, *ways)
        shared = traced_inputs(config, setting, 0)
        inputs = SamplerArrays(params, encoder.params, *batch, jnp.arange(BATCH), **shared)
        return sample_batch(program, inputs, encode_batch(encoding_of(program), inputs))

    return sample


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def measure(config, steps: int, repeat: int) -> float:
    encoder, shape, params = parts(config)
    sample = sampler(config, encoder, shape, params, steps)

    @jax.jit
    def forward(params, x, t, w):
        model = nnx.merge(graphdef_of(ELF, shape), params)
        return model.denoise(model(x, t, w, jnp.zeros_like(t)))

    inputs = params, jnp.ones((BATCH, config.data.max_length, 1024)), jnp.full(BATCH, 0.5), jnp.ones(BATCH)
    seconds(sample, steps), seconds(forward, *inputs)
    ratios = []
    for _ in range(repeat):
        before = [seconds(forward, *inputs) for _ in range(steps // 2)]
        sampled = seconds(sample, steps)
        after = [seconds(forward, *inputs) for _ in range(steps - steps // 2)]
        ratios.append(sampled / sum(before + after))
    return float(np.median(ratios))


def compilations() -> int:
    config = resolve(sets=[*SETS, "depth=2", "hidden_size=64", "num_heads=4"], environ={}).config
    sample, before = sampler(config, *parts(config), 32), sample_batch._cache_size()
    for setting in TEN:
        jax.block_until_ready(sample(*setting))
    return sample_batch._cache_size() - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    keep_memory()
    print(f"compilations of ten settings of one shape: {compilations()}")
    config = resolve(model="ELF-B", sets=SETS, environ={}).config
    print(f"sampling over steps x forward: {measure(config, arguments.steps, arguments.repeat):.3f}")
