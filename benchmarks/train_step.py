"""One training step in forward passes of the same network, FLOPs and time: the price of the objective.

    python benchmarks/train_step.py [--repeat 20]

8 layers of 256, batch 16, length 128, AdamW. FLOPs are XLA's own count of unrolled twins (it counts a loop's body
once, so the scanned program cannot be asked); time is the median of steps that alternate with forwards.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from elfcli.config.resolve import resolve
from elfcli.models import layers
from elfcli.models.build import elf_shape
from elfcli.models.elf import ELF
from elfcli.models.layers import graphdef_of
from elfcli.optimizer import make_optimizer
from elfcli.parallel.mesh import make_mesh
from elfcli.training.step import init_state, make_train_step, step_rates
from elfcli.weights.encoder import load_encoder

SETS = ["depth=8", "hidden_size=256", "num_heads=4", "bottleneck_dim=128", "batch_size=16", "max_length=128",
        "max_input_length=0", "optimizer=adamw", "encoder_model_name=embedding", "embedding_dim=128"]  # fmt: skip
VOCAB = 1000


def programs(config):
    """(train step, its arguments, forward, its arguments), not compiled."""
    encoder = load_encoder(config.encoder, VOCAB)
    shape = elf_shape(config, encoder.dim, VOCAB)
    tx = make_optimizer(config.optimization)
    state = init_state(shape, tx, 0)
    B, S = config.global_batch, config.data.max_length
    ids = jnp.ones((1, B, S), jnp.int32)
    batch = {"input_ids": ids, "cond_mask": jnp.zeros((1, B, S), bool), "valid_mask": jnp.ones((1, B, S), bool)}
    step = make_train_step(config, shape, encoder, make_mesh())

    @jax.jit
    def forward(params, x, t, w):
        model = nnx.merge(graphdef_of(ELF, shape), params)
        return model.denoise(model(x, t, w, jnp.zeros_like(t)))

    x = jnp.ones((B, S, 2 * encoder.dim))
    return (
        step,
        (state, encoder.params, batch, step_rates(config, 1e-3)),
        forward,
        (state.params, x, jnp.full(B, 0.5), jnp.ones(B)),
    )


def unrolled_scan(body, x, blocks, *xs, remat="none", unroll=1):
    """`scan_blocks` written out, for counting."""
    for i in range(jax.tree.leaves(blocks)[0].shape[0]):
        block, *rest = jax.tree.map(lambda a, i=i: a[i], (blocks, *xs))
        x = body(block, x, *rest)
    return x


def count_flops(config) -> float:
    """FLOPs of a step over FLOPs of a forward."""
    scan_blocks, layers.scan_blocks = layers.scan_blocks, unrolled_scan
    try:
        step, step_args, forward, forward_args = programs(config)
        counts = [f.lower(*args).compile().cost_analysis()["flops"] for f, args in
                  ((step, step_args), (forward, forward_args))]  # fmt: skip
    finally:
        layers.scan_blocks = scan_blocks
    return counts[0] / counts[1]


def measure_time(config, repeat: int) -> float:
    """Median of the ratios of neighbouring step and forward times."""
    step, (state, *rest), forward, forward_args = programs(config)
    forward_args = jax.tree.map(jnp.copy, forward_args)  # the step gives its state's buffers away
    ratios = []
    for _ in range(repeat + 3):
        start = time.perf_counter()
        state = jax.block_until_ready(step(state, *rest))
        middle = time.perf_counter()
        jax.block_until_ready(forward(*forward_args))
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return float(np.median(ratios[3:]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    config = resolve(sets=SETS, environ={}).config
    print(f"time:  {measure_time(config, arguments.repeat):.2f} forward passes")
    print(f"FLOPs: {count_flops(config):.2f} forward passes")
