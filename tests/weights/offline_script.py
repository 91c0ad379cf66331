"""Opens everything that can come from the Hub and prints what it found: `python offline_script.py FOLDER`."""

import json
import sys
from pathlib import Path

from elfcli.config.resolve import resolve
from elfcli.data.folder import load_examples
from elfcli.data.tokenizers import load_tokenizer
from elfcli.scoring.judge import load_judge
from elfcli.training.start import resume_run, start_run
from elfcli.weights.encoder import read_encoder
from elfcli.weights.open import open_source

TINY = ["hidden_size=16", "depth=2", "num_heads=2", "bottleneck_dim=8", "max_length=16", "steps=2", "batch_size=8",
        "encoder_model_name=embedding", "embedding_dim=8", "tokenizer_name=org/model", "num_workers=0"]  # fmt: skip


def main(folder: Path) -> None:
    found = {}
    for name in ("org/plain", "org/saved"):
        examples = load_examples(name, "train")
        found[name] = [len(examples), examples.fingerprint, examples.tokens[3]["input_ids"].tolist()]
    found["tokenizer"] = load_tokenizer("org/model").convert_ids_to_tokens(3)
    found["encoder"] = read_encoder("org/encoder")[0].d_model
    found["judge"] = load_judge("org/judge", None)[1].n_layer
    found["checkpoint"] = open_source("org/model").step
    run = folder / "run"
    if not run.exists():
        start_run(resolve(sets=TINY, flags={"data_path": "org/plain"}, environ={}), run, stop_at=1)
    else:
        resume_run(run)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
