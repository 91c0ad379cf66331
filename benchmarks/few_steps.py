"""Few passes at equal entropy and equal training cost: a teacher of free text, its students, and refinement.

    python benchmarks/few_steps.py TEACHER --minutes 60 --output results/few_steps

TEACHER: a free-text run with self-conditioning. `progressive`, `mmd` and `mmd+ird` each train for as many optimizer
steps as take these minutes, by the time of a step measured on this machine. Every way is sampled with 1, 2, 4, 8 passes
(the teacher's ODE and SDE with 8 and 32 steps) and several guidance scales w, which trace perplexity against entropy;
compared is the perplexity at the entropy of the real text, with the 95% bootstrap interval of the texts. Prints a JSON
line per way and number of passes. Run it again after a stop: finished steps and scores are kept.
"""

import argparse
import json
from pathlib import Path

from elfcli.evaluation.evaluate import EvaluationJob
from elfcli.evaluation.run import run_seeds
from elfcli.planning.plan import plan_rounds, plan_stages
from elfcli.runs.rounds import is_distilled, remaining_rounds
from elfcli.sampling.generate import Options
from elfcli.sampling.made_by import network_calls
from elfcli.sampling.model import load_model
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import sources_of
from elfcli.scoring.comparison import REAL, perplexity_at
from elfcli.training.distill import start_rounds, train_rounds
from elfcli.ui.quiet import quiet
from elfcli.weights.open import open_source
from elfcli.weights.settings import resolved_of

PASSES = (8, 4, 2, 1)


def plans(teacher: str, minutes: float, sets: list[str]) -> dict[str, list[str]]:
    """The settings of each way of training students that take these minutes."""
    config = resolved_of(open_source(teacher), sets=[*sets, f"rounds={list(PASSES)}"]).config
    rounds = [one.step_seconds_estimate for one in plan_rounds(config, "local")]
    mmd, ird = (one.step_seconds_estimate for one in plan_stages(config, "local"))

    def steps(seconds: float) -> int:
        return max(int(60 * minutes / seconds), 1)

    both, alone = steps(mmd + ird), steps(mmd)
    return {
        "progressive": [f"rounds={list(PASSES)}", f"round_steps={steps(sum(rounds))}"],
        "mmd": ["distill_objective=mmd", f"stage_steps=[{alone}]"],
        "mmd+ird": ["distill_objective=mmd", f"stage_steps=[{both},{both}]"],
    }


def train(teacher: str, folder: Path, sets: list[str]) -> None:
    if is_distilled(folder):
        train_rounds(folder, remaining_rounds(folder))
        return
    source = open_source(teacher)
    start_rounds(source, resolved_of(source, sets=sets), folder)


def ways(teacher: str, folder: Path) -> list[tuple[str, str, str, int]]:
    """(way, checkpoint, sampler, passes) of everything that is compared."""
    found = [(f"teacher, {sampler}", teacher, sampler, steps) for sampler in ("ode", "sde") for steps in (32, 8)]
    found += [("teacher, refined", teacher, "refine", passes) for passes in PASSES]
    found += [("progressive", f"{folder / 'progressive'}@round-{passes}", "sde", passes) for passes in PASSES]
    return found + [(way, str(folder / way), "refine", passes) for way in ("mmd", "mmd+ird") for passes in PASSES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--num-samples", type=int, default=256)
    parser.add_argument("--w", type=float, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", default="ngram")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="a setting of the students' training")
    parser.add_argument("--output", type=Path, default=Path("results/few_steps"))
    o = parser.parse_args()
    quiet()
    o.output.mkdir(parents=True, exist_ok=True)
    if not (file := o.output / "plan.json").exists():
        file.write_text(json.dumps(plans(o.teacher, o.minutes, o.sets), indent=1))
    for way, sets in json.loads(file.read_text()).items():
        train(o.teacher, o.output / way, [*o.sets, *sets])
    rows = []
    for way, checkpoint, sampler, passes in ways(o.teacher, o.output):
        model = load_model(checkpoint, sets=[f"eval_ppl_model={o.judge}"])
        gamma = 1.5 if sampler == "sde" else 0.0
        settings = [SamplingSetting(sampler, passes, self_cond_scale=w, sde_gamma=gamma) for w in o.w]
        folder = o.output / "scores" / f"{way.replace(', ', '-')}-{passes}"
        sources = sources_of(model, None, o.num_samples)
        job = EvaluationJob(model, tuple(settings), sources, ("ppl",), folder, Options(o.seed))
        results = run_seeds("few_steps", job, [o.seed], overwrite=False)
        scores = [result["scores"][0] for result in results]
        figures = [{"w": w, "ppl": score["value"], "interval": score.get("interval"), "entropy": score["entropy"]}
                   for w, score in zip(o.w, scores, strict=True)]  # fmt: skip
        rows.append({"way": way, "passes": passes, "calls": network_calls(model.config, settings[0]),
                     "at_real_entropy": perplexity_at(results, REAL), "figures": figures})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    (o.output / "few_steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
