"""`elf train --debug-step`: one step without compilation and with checks for NaN, told layer by layer.

For those who change the objective or the network: an error points to the line that made it, and norms show what does
not learn. Nothing is written.
"""

import traceback
from functools import partial
from pathlib import Path

import jax
import numpy as np

from elfcli.config.resolve import Resolved
from elfcli.data.batches import load_batch
from elfcli.data.tokenizers import vocab_size
from elfcli.errors import ElfError, first_line
from elfcli.models.build import elf_shape
from elfcli.models.elf import init_params
from elfcli.parallel.mesh import make_mesh
from elfcli.runs.length import run_length
from elfcli.training.inputs import Inputs
from elfcli.training.loop import schedule_and_optimizer
from elfcli.training.step import Frozen, Setup, clean_latents, mean_gradients
from elfcli.ui.table import aligned

MOST_EXAMPLES = 8
PACKAGE = Path(__file__).parents[1]


def debug_step(resolved: Resolved, inputs: Inputs) -> list[str]:
    """Lines for the user. ElfError where something is not finite, with the line of ours that made it."""
    config = resolved.config
    count = min(config.global_batch, MOST_EXAMPLES, len(inputs.examples))
    shape = elf_shape(config, inputs.encoder.dim, vocab_size(inputs.tokenizer))
    _, tx = schedule_and_optimizer(config, run_length(config, len(inputs.examples)), shape)
    setup = Setup(config, shape, inputs.encoder.apply, tx, make_mesh(devices=jax.local_devices()[:1]))
    key, params = jax.random.key(config.training.seed), init_params(shape, jax.random.key(config.training.seed))
    batch = load_batch(inputs.examples.tokens, 0, batch_size=count, seed=config.training.seed,
                       collate_fn=inputs.collate, rows=slice(0, count))  # fmt: skip
    run = partial(one_step, setup, params, inputs.encoder.params, batch, key)
    with jax.debug_nans(True), jax.disable_jit():
        try:
            x0, grads, values = run()
        except FloatingPointError as error:
            raise ElfError(f"not finite: {first_line(error)[:200]}, made in {place_of(error)}") from error
    if lost := infinite({"latents x0": x0, **values}) + infinite(grads):
        raise ElfError(f"infinite: {', '.join(lost[:5])}, and no NaN that says where")
    return [
        f"{count} examples: " + ", ".join(f"{name} {array.shape}" for name, array in batch.items()),
        f"latents x0 {x0.shape}: mean {x0.mean():.3f}, standard deviation {x0.std():.3f}, largest {abs(x0).max():.3g}",
        ", ".join(f"{name} {float(value[0]):.4g}" for name, value in values.items()),
        "",
        *aligned([("parameter", "shape", "norm, a number per layer", "norm of the gradient"), *rows_of(params, grads)]),
    ]


def one_step(setup: Setup, params, encoder_params, batch: dict, key):
    """(latents, gradients, losses) of one batch of arrays (B, S)."""
    ids, cond, valid = batch["input_ids"], batch["cond_mask"], batch["valid_mask"]
    x0 = np.asarray(clean_latents(setup, encoder_params, ids, cond, valid, np.zeros(len(ids), bool)))
    grads, values = mean_gradients(
        setup, params, Frozen(encoder_params), {name: array[None] for name, array in batch.items()}, key
    )
    return x0[valid], grads, values


def rows_of(params, grads) -> list[tuple[str, ...]]:
    """A row per parameter; stacked blocks have a norm per layer."""
    rows: list[tuple[str, ...]] = []
    both = zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(grads), strict=True)
    for (path, weight), gradient in both:
        name = name_of(path)
        cells = [norms(np.asarray(array), stacked="blocks" in name) for array in (weight, gradient)]
        rows.append((name, str(weight.shape), *cells))
    return rows


def infinite(tree) -> list[str]:
    """Names of the arrays that hold an infinity. The masks of attention do on purpose, so JAX is not asked for them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [name_of(path) for path, array in leaves if np.isinf(np.asarray(array)).any()]


def name_of(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def norms(array: np.ndarray, stacked: bool) -> str:
    parts = array.reshape(len(array), -1) if stacked else array.reshape(1, -1)
    return " ".join(f"{value:.2e}" for value in np.linalg.norm(parts, axis=1))


def place_of(error: BaseException) -> str:
    """The last line of this package in the traceback."""
    ours = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(PACKAGE)
    ]
    last = ours[-1]
    return f"{Path(last.filename).relative_to(PACKAGE.parent)}:{last.lineno} ({last.line})"
