"""How much of a token noise hides: the share of tokens that a lookup of the nearest latent reads, over time.

`python benchmarks/noise.py [--picture docs/noise.svg] [--folder ENCODER ...]` prints the noise scale at which as many
tokens are read at the median training time as with the paper's 2 at width 512, for random latents of several widths and
for the token tables of encoder folders, beside the recipe's rule. numpy only; half a minute.
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from elfcli.flow.schedules import fitting_noise, median_time

TOKENS, TRIED = 4000, 1500
MEDIAN = median_time("logit_normal", -1.5)


def read_share(latents: np.ndarray, scale: float, t: float) -> float:
    """Return the share of latents (K, E) whose nearest one, through noise of time t, is their own."""
    rng = np.random.default_rng(1)
    tried = latents[:TRIED]
    noisy = tried + (1 - t) / t * scale * rng.standard_normal(tried.shape, np.float32)
    distances = (latents**2).sum(axis=1) - 2 * noisy @ latents.T
    return float((distances.argmin(axis=1) == np.arange(len(tried))).mean())


def matching_scale(latents: np.ndarray, share: float) -> float:
    """Return the scale at which this share is read at the median training time, by bisection."""
    low, high = 0.02, 20.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if read_share(latents, middle, MEDIAN) > share else (low, middle)
    return (low * high) ** 0.5


def random_latents(width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((TOKENS, width), np.float32)


def table_of(folder: Path) -> np.ndarray:
    """Return the first token vectors of an encoder folder, with mean 0 and standard deviation 1."""
    arrays = load_file(folder / "model.safetensors")
    table = next(array for name, array in arrays.items() if "shared" in name or "embed_tokens" in name)
    table = table[3 : TOKENS + 3].astype(np.float32)
    return (table - table.mean()) / table.std()


def draw(path: Path) -> None:
    import matplotlib.pyplot as plt

    times = np.linspace(0.02, 0.98, 60)
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    logits = np.log(times / (1 - times))
    density = np.exp(-((logits + 1.5) ** 2) / (2 * 0.8**2)) / (times * (1 - times))
    axis.fill_between(times, 0.5 * density / density.max(), color="0.85", label="times of training")
    for width, scale, style in ((512, 2.0, "-"), (64, 0.71, "--"), (64, 2.0, ":")):
        shares = [read_share(random_latents(width), scale, float(t)) for t in times]
        axis.plot(times, shares, style, color="#0b5cad", label=f"{width} numbers, noise scale {scale:g}")
    axis.set(xlabel="time t (0: noise, 1: text)", ylabel="tokens read", ylim=(0, 1.02), xlim=(0, 1))
    axis.legend(loc="center right", frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--folder", type=Path, nargs="*", default=())
    given = parser.parse_args()
    share = read_share(random_latents(512), 2.0, MEDIAN)
    print(f"512 random numbers at scale 2: {share:.1%} of {TOKENS} read at t = {MEDIAN:.3f}")
    latents = {f"random, width {width}": random_latents(width) for width in (64, 128, 256)}
    latents |= {str(folder): table_of(folder) for folder in given.folder}
    for name, table in latents.items():
        width = table.shape[1]
        print(f"{name}: by width {fitting_noise(width)[0]:.2f}, by reading {matching_scale(table, share):.2f}")
    if given.picture:
        draw(given.picture)


if __name__ == "__main__":
    main()
