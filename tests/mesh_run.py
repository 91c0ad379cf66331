"""Three steps of a tiny model on meshes of 8 virtual devices; prints how far each is from a single device.

python tests/mesh_run.py 8x1 2x4 -- optimizer=adamw
"""

import os
import sys

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
from functools import partial

import jax
import numpy as np

from elfcli.config.resolve import resolve
from elfcli.models.build import elf_shape
from elfcli.optimizer import make_optimizer
from elfcli.parallel.mesh import make_mesh, put_batch, replicate, state_shardings
from elfcli.training.step import init_state, make_train_step, step_rates
from elfcli.weights.encoder import load_encoder

TINY = ["depth=2", "hidden_size=32", "num_heads=2", "bottleneck_dim=8", "batch_size=16", "max_length=12",
        "max_input_length=0", "encoder_model_name=embedding", "embedding_dim=8", "lr=1e-2",
        "warmup_steps=0"]  # fmt: skip
VOCAB = 50


def run(config, data: int, fsdp: int):
    """Weights and metric sums after three steps on data x fsdp devices."""
    encoder = load_encoder(config.encoder, VOCAB)
    shape = elf_shape(config, encoder.dim, VOCAB)
    tx = make_optimizer(config.optimization)
    mesh = make_mesh(fsdp, devices=jax.devices()[: data * fsdp])
    init = partial(init_state, shape, tx, 0)
    state = jax.jit(init, out_shardings=state_shardings(jax.eval_shape(init), mesh))()
    step, params = make_train_step(config, shape, encoder, mesh), replicate(encoder.params, mesh)
    ids = np.random.default_rng(0).integers(0, VOCAB, (1, 16, 12)).astype(np.int32)
    batch = {"input_ids": ids, "cond_mask": np.zeros(ids.shape, bool), "valid_mask": np.ones(ids.shape, bool)}
    for _ in range(3):
        state = step(state, params, put_batch(batch, mesh), step_rates(config, 1e-2))
    cut = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    return jax.device_get((state.params, state.ema, state.totals)), cut


if __name__ == "__main__":
    meshes, _, sets = " ".join(sys.argv[1:]).partition("--")
    config = resolve(sets=[*TINY, *sets.split()], environ={}).config
    alone, _ = run(config, 1, 1)
    for name in meshes.split():
        found, cut = run(config, *map(int, name.split("x")))
        errors = jax.tree.map(lambda a, b: float(np.abs(a - b).max() / (np.abs(b).max() + 1e-9)), found, alone)
        totals = {key: [float(v) for v in value] for key, value in found[2].items()}
        print(json.dumps({"mesh": name, "error": max(jax.tree.leaves(errors)), "cut": cut, "totals": totals}))
