"""Kills `elf` with SIGKILL at random moments, goes on, and compares with what was never killed.

    python benchmarks/kill.py --kills 100            elf train: half of the kills inside saving, weights compared
    python benchmarks/kill.py --what tokenize        output whole or absent, never half
    python benchmarks/kill.py --what sample

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
        "log_freq=2", "warmup_steps=2", "max_length=24", "max_input_length=12", "save_every_steps=3",
        "keep=2"]  # fmt: skip


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


def kill(process: subprocess.Popen) -> bool:
    """Whether it was still there to be killed."""
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def newest(run: Path) -> int:
    return max((int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()), default=0)


def wait_to_kill(process: subprocess.Popen, run: Path, inside_saving: bool, draw: random.Random) -> None:
    """Returns in the middle of a save, or a random while after the process has got one step further."""
    before = newest(run)
    while process.poll() is None:
        if inside_saving and newest(run) > before and any(run.glob("checkpoints/*tmp*")):
            time.sleep(draw.random() * 0.05)
            return
        if not inside_saving and newest(run) > before:
            time.sleep(draw.random())
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
    run, done, inside, resumed = folder / "killed", 0, 0, 0
    while done < kills:
        started = (run / "config.toml").is_file()
        process = elf("resume", run) if started else elf(*train, run)
        inside_saving = done % 2 == 1
        wait_to_kill(process, run, inside_saving, draw)
        saving = any(run.glob("checkpoints/*tmp*"))
        if not kill(process):
            if process.returncode:
                sys.exit(f"kill {done}: the run could not go on (code {process.returncode})")
            break  # trained to its end: more steps are needed for so many kills
        done, inside, resumed = done + 1, inside + saving, resumed + started
    at = newest(run)
    finish("resume", run)
    theirs, ours = weights(folder / "whole"), weights(run)
    other = [name for name in theirs if theirs[name] != ours.get(name)]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {"kills": done, "inside_saving": inside, "resumed": resumed, "last_kill_at_step": at, "steps": steps,
            "arrays": len(theirs), "arrays_that_differ": len(other),
            "metrics_whole": [row["step"] for row in lines] == list(range(2, steps + 1, 2))}  # fmt: skip


def kill_output(folder: Path, kills: int, what: str, draw: random.Random) -> dict:
    """The command is killed at random moments of its duration; its output must be whole, or not there."""
    output = folder / "output"
    if what == "tokenize":
        command = ["tokenize", "--task", "toy-de-en", "-o", output]
    else:
        finish("tokenize", "--task", "toy-de-en", "-o", folder / "data")
        sets = [part for setting in [*TINY, "steps=3"] for part in ("-s", setting)]
        finish("train", "--task", "toy-de-en", "--data", folder / "data", *sets, "-o", folder / "run")
        command = ["sample", "--checkpoint", folder / "run", "--num-samples", 64, "--steps", 8, "-o", output]

    def content() -> dict[str, bytes]:
        paths = output.rglob("*") if output.is_dir() else [output]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    def clear() -> None:
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)

    finish(*command)
    clear()
    seconds, whole = finish(*command), content()
    absent = half = late = 0
    for _ in range(kills):
        clear()
        process = elf(*command)
        time.sleep(seconds * draw.random())
        late += not kill(process)
        found = content()
        absent += not found
        half += bool(found) and found != whole
    clear()
    finish(*command)
    return {"kills": kills, "absent": absent, "half_written": half, "finished_before": late,
            "same_afterwards": content() == whole}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("train", "tokenize", "sample"), default="train")
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
