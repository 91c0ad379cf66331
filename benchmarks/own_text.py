"""How good own text gets in so many minutes with nothing set: train on a data folder, sample held-out sources, score.

    python benchmarks/own_text.py data/my --minutes 5 10 20 50 --seeds 0 1 2 --output results/own_text

`elf tokenize` makes the data folder, which needs a validation split. Each run is `elf train --data DIR --minutes M`, in
a process of its own, and each score that of `elf eval` with the run's own sampling setting. A run that is there already
is not trained again. A folder `encoder` in the data is used; without one, runs of 20 minutes or more train theirs.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def elf(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "elfcli", *map(str, arguments)], check=True)


def measure(data: Path, folder: Path, minutes: float, seed: int, samples: int) -> dict:
    """What came out of one run."""
    run, scored = folder / f"m{minutes:g}-seed{seed}", folder / f"m{minutes:g}-seed{seed}-scores"
    start = time.monotonic()
    if not run.exists():
        elf("train", "--data", data, "--minutes", minutes, "--seed", seed, "--output", run)
    trained = (time.monotonic() - start) / 60
    elf("eval", "--checkpoint", run, "--num-samples", samples, "--output", scored, "--overwrite")
    result = json.loads((scored / "results.jsonl").read_text().splitlines()[0])
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    last = [row for row in rows if "loss" in row][-1]  # lines of held-out figures stand between those of training
    scores = {score["metric"]: score["value"] for score in result["scores"]}
    return {"minutes": minutes, "seed": seed, "took": round(trained, 1), "steps": last["step"],
            "denoise_loss": last["denoise_loss"], "decode_loss": last["decode_loss"], **scores}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 10.0, 20.0, 50.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("results/own_text"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for minutes in options.minutes:
        for seed in options.seeds:
            row = measure(options.data, options.output, minutes, seed, options.num_samples)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
