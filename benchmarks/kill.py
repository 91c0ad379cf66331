"""Kills `elf` with SIGKILL at random moments, goes on, and compares with what was never killed.

    python benchmarks/kill.py --kills 100            elf train: half of the kills inside saving, weights compared
    python benchmarks/kill.py --what tokenize        output whole or absent, never half
    python benchmarks/kill.py --what sample
    python benchmarks/kill.py --what sweep           goes on with what is finished, loses none of it

Prints one JSON line. Needs no network and no accelerator.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TINY = ["depth=2", "hidden_size=32", "num_heads=2", "bottleneck_dim=8", "embedding_dim=8", "batch_size=4",
        "log_every_steps=2", "warmup_steps=2", "max_length=24", "max_input_length=12", "save_every_steps=3",
        "keep_checkpoints=2"]  # fmt: skip
MOMENTS = ("saving", "step", "saving", "any")
STARTS = 15.0
"""Seconds in which a run starts and takes its first steps, about."""


def elf(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "elfcli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(*arguments) -> float:
    """Runs the command to its end, which must be a good one; returns the seconds."""
    start, process = time.monotonic(), elf(*arguments)
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(f"{' '.join(map(str, arguments))} ended with {process.returncode}: {said[-2000:]}")
    return time.monotonic() - start


def kill(process: subprocess.Popen) -> tuple[bool, str]:
    """(whether it was still there to be killed, what it said on stderr)."""
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    return alive, process.communicate()[1]


def newest(run: Path) -> int:
    return max((int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()), default=0)


def wait_to_kill(process: subprocess.Popen, run: Path, moment: str, draw: random.Random) -> None:
    """Returns inside a save, a random while after the process has got one checkpoint further, or at any time."""
    before = newest(run)
    if moment == "any":
        time.sleep(draw.random() * STARTS)
        return
    while process.poll() is None:
        if newest(run) > before and (moment == "step" or any(run.glob("checkpoints/*tmp*"))):
            time.sleep(draw.random() * (1 if moment == "step" else 0.05))
            return
        time.sleep(0.0005)


def weights(run: Path) -> dict[str, bytes]:
    """Every array of the newest checkpoint."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    found = {}
    for part in ("params", "ema", "rest"):
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(run / "checkpoints" / str(newest(run)) / part)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[part + jax.tree_util.keystr(path)] = np.asarray(leaf).tobytes()
    return found


def kill_train(folder: Path, kills: int, steps: int, draw: random.Random) -> dict:
    finish("tokenize", "--task", "toy-de-en", "-o", folder / "data")
    sets = [part for setting in [*TINY, f"steps={steps}"] for part in ("-s", setting)]
    train = ["train", "--task", "toy-de-en", "--data", folder / "data", *sets, "-o"]
    finish(*train, folder / "whole")
    run, done, inside, starting, resumed = folder / "killed", 0, 0, 0, 0
    while done < kills:
        started, before = (run / "config.toml").is_file(), newest(run)
        process = elf("resume", run) if started else elf(*train, run)
        wait_to_kill(process, run, MOMENTS[done % len(MOMENTS)], draw)
        saving = any(run.glob("checkpoints/*tmp*"))
        alive, said = kill(process)
        if not alive:
            if process.returncode:
                sys.exit(f"kill {done}: the run could not go on (code {process.returncode}): {said[-2000:]}")
            break  # trained to its end: more steps are needed for so many kills
        done, inside, resumed = done + 1, inside + saving, resumed + started
        starting += newest(run) == before
        print(f"kill {done} at step {newest(run)}", file=sys.stderr)
    at = newest(run)
    finish("resume", run)
    theirs, ours = weights(folder / "whole"), weights(run)
    other = [name for name in theirs if theirs[name] != ours.get(name)]
    return {"kills": done, "inside_saving": inside, "before_a_new_checkpoint": starting, "resumed": resumed,
            "last_kill_at_step": at, "steps": steps, "arrays": len(theirs), "arrays_that_differ": len(other),
            "metrics_same": metrics(run) == metrics(folder / "whole")}  # fmt: skip


def metrics(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without what the clock decides."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


def command_of(what: str, folder: Path) -> list:
    """The command to kill, with what it needs made ready; its output is `folder/output`."""
    if what == "tokenize":
        return ["tokenize", "--task", "toy-de-en", "-o", folder / "output"]
    finish("tokenize", "--task", "toy-de-en", "-o", folder / "data")
    sets = [part for setting in [*TINY, "steps=3"] for part in ("-s", setting)]
    finish("train", "--task", "toy-de-en", "--data", folder / "data", *sets, "-o", folder / "run")
    if what == "sample":
        return ["sample", "--checkpoint", folder / "run", "--num-samples", 64, "--steps", 8, "-o", folder / "output"]
    return ["sweep", folder / "run", "-n", 64, "--steps", "2,8,64", "--cfg", "1,2", "-o", folder / "output"]


def content(output: Path) -> dict[str, str]:
    """What lies there by name; the lines of a sweep's results one by one, without what the clock decides."""
    paths = output.rglob("*") if output.is_dir() else [output]
    found = {str(path): path.read_bytes().hex() for path in paths if path.is_file() and path.name[0] != "."}
    if found.pop(str(output / "results.jsonl"), None) is not None:
        for line in (output / "results.jsonl").read_text().splitlines():
            row = json.loads(line)
            found[f"result {row['name']}"] = json.dumps(row | {"seconds": 0})
    return found


def kill_output(folder: Path, kills: int, what: str, draw: random.Random) -> dict:
    """The command is killed at random moments of its duration; its output must be whole, or not there.

    A sweep goes on with what it has: nothing that was there may be lost or change.
    """
    output, command = folder / "output", command_of(what, folder)

    def clear() -> None:
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)

    finish(*command)  # compiles
    clear()
    seconds, whole, beside = finish(*command), content(output), set(folder.iterdir())
    absent = wrong = late = on = done = 0
    alive = False
    while done < kills:
        goes_on = alive and what == "sweep"
        if not goes_on:
            clear()
        before = content(output)
        process = elf(*command)
        time.sleep(seconds * draw.random())
        alive, said = kill(process)
        if not alive and process.returncode:
            sys.exit(f"kill {done}: the command could not be run again (code {process.returncode}): {said[-2000:]}")
        found = content(output)
        wrong += not before.items() <= found.items() <= whole.items() or (
            what != "sweep" and 0 < len(found) < len(whole)
        )
        if not alive:  # was too fast to be killed, so that later kills come earlier
            late, seconds = late + 1, seconds * 0.9
            continue
        done, on, absent = done + 1, on + goes_on, absent + (not found)
        print(f"kill {done}: {len(found)} of {len(whole)} there", file=sys.stderr)
    finish(*command, *(["--overwrite"] if output.exists() and what != "sweep" else []))
    left = [path.name for path in folder.iterdir() if path not in beside]
    return {"kills": kills, "finished_before": late, "absent": absent, "half_written_or_lost": wrong,
            "went_on": on, "same_afterwards": content(output) == whole, "left_beside": left}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("train", "tokenize", "sample", "sweep"), default="train")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of the run; by default enough for the kills")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw, start = random.Random(asked.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="elf-kill-") as name:
        if asked.what == "train":
            result = kill_train(Path(name), asked.kills, asked.steps or 30 + 12 * asked.kills, draw)
        else:
            result = kill_output(Path(name), asked.kills, asked.what, draw)
    print(json.dumps({"what": asked.what, **result, "seconds": round(time.monotonic() - start)}))


if __name__ == "__main__":
    main()
