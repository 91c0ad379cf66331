"""How long a run takes to start on much data, and what it reads: `python benchmarks/start.py [ROWS] [TOKENS]`.

Writes ROWS x TOKENS random ids as `elf tokenize` and as `datasets.save_to_disk` leave them, opens both as a run does,
each in a process of its own, and times a batch at the start of the first, second and hundredth epoch. The data lies
in a temporary folder and is removed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from elfcli.corpus.encode import write_arrow
from elfcli.data.batches import batch_indices
from elfcli.data.folder import METADATA_FILE, load_examples
from elfcli.data.ids import check_token_ids

CHUNK = 100_000
BATCH = 512


def memory() -> dict[str, int]:
    """MB of this process: its own, and of files that it has looked at."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: int(line.split()[1]) // 1024 for name in ("RssAnon", "RssFile") for line in lines if name in line}


def write(folder: Path, rows: int, length: int) -> None:
    rng = np.random.default_rng(0)
    lengths = np.full(CHUNK, length)
    chunks = ([(rng.integers(0, 32_100, CHUNK * length, np.int32), lengths)] for _ in range(rows // CHUNK))
    folder.mkdir()
    _, record = write_arrow(chunks, ("input_ids",), folder)
    (folder / METADATA_FILE).write_text(json.dumps({"splits": {"train": record}}))


def start(folder: Path) -> None:
    """What a start does with data, timed; libraries are loaded before."""
    import datasets  # noqa: F401
    import grain.experimental  # noqa: F401

    before, clock = memory(), time.perf_counter()
    examples = load_examples(folder)
    opened = time.perf_counter()
    check_token_ids(examples, 32_100)
    checked = time.perf_counter()
    print(f"  opened in {opened - clock:.2f} s, ids checked in {checked - opened:.3f} s", end="; ")
    per_epoch = len(examples) // BATCH
    for epoch in (0, 1, 99):
        clock = time.perf_counter()
        indices = batch_indices(epoch * per_epoch, num_examples=len(examples), batch_size=BATCH, seed=0)
        batch = [examples.tokens[int(index)]["input_ids"] for index in indices]
        print(f"batch of epoch {epoch + 1}: {1e3 * (time.perf_counter() - clock):.1f} ms", end="; ")
        assert len(batch) == BATCH
    print(", ".join(f"{name} {before[name]} to {now} MB" for name, now in memory().items()), flush=True)


def main(rows: int = 10_000_000, length: int = 8) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        clock = time.perf_counter()
        write(folder, rows, length)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"{rows:,} rows of {length} tokens, {size:,.0f} MB, written in {time.perf_counter() - clock:.0f} s")
        again = [sys.executable, __file__, "--start", str(folder)]
        for what in ("with elf_data.json", "without, first start", "without, second start"):
            if what.startswith("without"):
                (folder / METADATA_FILE).unlink(missing_ok=True)
            print(what)
            sys.stdout.flush()
            subprocess.run(again, check=True, env=os.environ | {"HF_HOME": f"{scratch}/cache"})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--start"]:
        start(Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
