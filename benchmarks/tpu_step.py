"""The training step compiled for TPU v5p-64 (32 chips, batch 512, length 1024), without a TPU: a row per model.

    python benchmarks/tpu_step.py [ELF-B ELF-M ELF-L]

Needs `pip install 'elfcli[tpu]'` and some minutes per model; prints a JSON line each, the figures of `elf plan`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = ("ELF-B", "ELF-M", "ELF-L")


def plan(model: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        command = [sys.executable, "-m", "elfcli", "plan", "--task", "owt", "--model", model]
        subprocess.run([*command, "--topology", "v5p-64", "--json", str(file)], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())


if __name__ == "__main__":
    for model in sys.argv[1:] or MODELS:
        found = plan(model)
        row = {
            "model": model,
            "tflop": round(found["flops_per_chip"] / 1e12, 2),
            "gb": round(found["bytes_accessed_per_chip"] / 1e9, 1),
            "seconds": round(found["step_seconds_estimate"], 4),
            "peak_gib": round(found["peak_bytes_per_chip"] / 2**30, 2),
            "fits": found["fits"],
            "compile_seconds": round(found["compile_seconds"], 1),
        }
        print(json.dumps(row), flush=True)
