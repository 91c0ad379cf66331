"""A run of three steps with a network of a few thousand weights, made once per session by the worker that is first."""

import functools
import json
from pathlib import Path

from filelock import FileLock
from helpers import session_folder

from elfcli.config.resolve import resolve
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.training.start import start_run

SETTINGS = [
    *("hidden_size=16", "depth=2", "num_heads=2", "bottleneck_dim=8", "embedding_dim=8", "max_length=16"),
    *("max_input_length=8", "steps=3", "save_every_steps=1", "batch_size=8", "warmup_steps=1", "num_workers=0"),
    *("text_position=8", "optimizer=adamw", "lr=0.01", "ema_decay=0.5"),
]


@functools.cache
def tiny_run() -> Path:
    """The run folder; copy it before changing anything in it."""
    folder = session_folder() / "tiny"
    with FileLock(session_folder() / "tiny.lock"):
        if not (folder / "run" / "checkpoints" / "3").is_dir():
            make(folder)
    return folder / "run"


def make(folder: Path) -> None:
    """Write folder/pairs.jsonl, folder/data and folder/run."""
    folder.mkdir()
    rows = [{"input": f"ein wort {i % 7} und {i % 5}", "output": f"one word {i % 7} and {i % 5}"} for i in range(32)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = (str(folder / "pairs.jsonl"),)
    tokenize(Job(folder / "data", inputs=pairs, source_key="input", target_key="output", train_tokenizer=26))
    settings = resolve(task="toy-de-en", sets=SETTINGS, flags={"data_path": str(folder / "data")}, environ={})
    start_run(settings, folder / "run")
