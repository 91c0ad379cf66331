"""How fast texts of mixed length are judged: as `elf eval-ppl` batches them, beside padding all to the window.

    python benchmarks/judge.py --texts 64 --layers 4 --width 256

A random GPT-2 of this size judges random texts whose lengths are drawn as exp(normal), from a few tokens up to the
window. Both ways run in turns, after one run of each that compiles; the ratio is of medians. Prints one JSON line.
"""

import argparse
import json
import time
from functools import partial
from statistics import median

import jax
import numpy as np
from flax import nnx

from elfcli.models.gpt2 import GPT2, Gpt2Shape
from elfcli.scoring import judge, perplexity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("texts", 64),
        ("layers", 4),
        ("width", 256),
        ("window", 1024),
        ("batch-size", 8),
        ("repeat", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    o = parser.parse_args()
    shape = Gpt2Shape(1000, o.window, o.width, o.layers, o.width // 64, 4 * o.width)
    params = nnx.state(GPT2(shape, rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda a: jax.random.normal(jax.random.key(1), a.shape) * 0.05, nnx.to_pure_dict(params))
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(4.6, 1.0, o.texts)), 4, o.window).astype(int)
    rows = [list(map(int, rng.integers(0, 999, length))) for length in lengths]
    score = partial(perplexity.score_tokens, shape, params)
    several = judge.PADDED_LENGTHS

    def totals(padded_lengths):
        judge.PADDED_LENGTHS = padded_lengths
        return perplexity.row_totals(score, rows, eos_id=999, window=o.window, batch_size=o.batch_size)

    ways = {"batched by length": several, "padded to the window": ()}
    found = {name: totals(way) for name, way in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in range(o.repeat):
        for name, way in ways.items():
            start = time.perf_counter()
            totals(way)
            seconds[name].append(time.perf_counter() - start)
    (ours, counts), (plain, _) = found.values()
    times = {name: median(values) for name, values in seconds.items()}
    print(json.dumps({
        "texts": o.texts, "median length": float(np.median(lengths)), "seconds": times,
        "times faster": times["padded to the window"] / times["batched by length"],
        "largest difference": float(np.max(np.abs(ours - plain) / np.maximum(counts, 1))),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
