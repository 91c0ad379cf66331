"""What few steps cost: how near they come to 512 steps, and the score, against network calls, for solvers and grids.

    python benchmarks/solvers.py RUN --steps 1 2 4 8 16 32 64 --num-samples 256 --output results/solvers.jsonl

RUN: a conditional run with references. All settings
start from the same noise. `tokens`: share of text tokens that equal those of the 512-step ODE (even grid), which says
little about the SDE, whose texts differ by their noise; `bleu` with its bootstrap 95% interval; `entropy`: of words,
mean over texts, nats. Prints a JSON line per setting, the cheapest first.
"""

import argparse
import json
from collections import Counter
from itertools import product
from math import log
from pathlib import Path

import numpy as np

from elfcli.sampling.generate import Options, decoded_rows, program_of, sample_candidates, sampling_batches
from elfcli.sampling.made_by import network_calls
from elfcli.sampling.model import load_model
from elfcli.sampling.settings import SamplingSetting, settings_of
from elfcli.sampling.sources import sources_of
from elfcli.scoring.bleu import corpus_bleu


def sampled(model, sources, setting, options):
    """(tokens (R, S), texts) of all sources."""
    program, rows, texts = program_of(model, setting, options, sources), [], []
    for part in sampling_batches(model, sources, setting, options):
        tokens = np.asarray(sample_candidates(program, [part])[0])
        texts += [row["generated"] for row in decoded_rows(model, tokens, part)]
        rows.append(np.where(np.asarray(part.inputs.cond_BxS), -1, tokens)[: len(part.sources.conditions)])
    return np.concatenate(rows), texts


def word_entropy(texts) -> float:
    values = []
    for words in map(str.split, texts):
        counts = np.array(list(Counter(words).values())) / max(len(words), 1)
        values.append(-sum(p * log(p) for p in counts))
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--num-samples", type=int, default=256)
    parser.add_argument("--reference-steps", type=int, default=512)
    parser.add_argument("--output", type=Path)
    o = parser.parse_args()
    model = load_model(o.run)
    sources, preset = sources_of(model, None, o.num_samples), settings_of(model.config.sampling)[0]
    references = [row["reference"] for row in sources.rows]
    guided = {"cfg": preset.cfg, "self_cond_scale": preset.self_cond_scale}
    options = Options(batch_size=o.num_samples, longest=max(o.steps))
    exact = SamplingSetting("ode", o.reference_steps, time_schedule="uniform", **guided)
    target, _ = sampled(model, sources, exact, Options(batch_size=o.num_samples))
    text = target >= 0
    ways = [*product(("ode", "multistep", "sde"), ("uniform", "logit_normal"))]
    rows = []
    for steps, (solver, grid) in product(o.steps, ways):
        if solver == "multistep" and grid == "logit_normal":
            continue
        setting = SamplingSetting(
            solver, steps, time_schedule=grid, sde_gamma=1.5 if solver == "sde" else 0.0, **guided
        )
        tokens, texts = sampled(model, sources, setting, options)
        found = corpus_bleu(texts, references)
        rows.append({"solver": solver, "grid": grid, "steps": steps, "calls": network_calls(model.config, setting),
                     "tokens": round(float((tokens == target)[text].mean()), 4), "bleu": round(found.bleu, 2),
                     "interval": [round(end, 2) for end in found.as_dict()["interval"]],
                     "entropy": round(word_entropy(texts), 3)})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    if o.output:
        o.output.parent.mkdir(parents=True, exist_ok=True)
        o.output.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
