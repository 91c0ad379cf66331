"""A folder of everything that can be wrong with a file, made once for the tests of bad input."""

import gzip
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import datasets
import numpy as np
from helpers import GOLDENS
from tiny_run import tiny_run

PAIRS = '{"input": "ein wort 1", "output": "one word 1"}\n'
SAMPLES = '{"id": 0, "generated": "one word", "reference": "one word"}\n'


def make(folder: Path) -> Path:
    """Fills `folder` with bad texts, samples, settings, data, weights and runs, and good ones beside them."""
    run = tiny_run()
    shutil.copytree(run, folder / "run")
    shutil.copytree(run.parent / "data", folder / "data")
    (folder / "folder").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "precious").write_text("precious")
    os.symlink("/dev/null", folder / "link.jsonl")
    write_texts(folder)
    write_settings(folder)
    write_data(folder)
    write_weights(folder)
    write_runs(folder)
    return folder


def write_texts(folder: Path) -> None:
    texts = {
        "good.jsonl": PAIRS,
        "samples.jsonl": SAMPLES,
        "bare.jsonl": '{"id": 0, "input": "ein wort", "generated": "one word"}\n',
        "split.jsonl": '{"id": 0, "source": "drei sätze und mehr", "output": "three sentences"}\n',
        "mixed.jsonl": SAMPLES + SAMPLES.replace('"reference": "one', '"reference": "another'),
        "good.txt": "one word\n",
        "empty.txt": "",
        "blank.txt": "\n \n\n",
        "empty.jsonl": "",
        "list.jsonl": '[{"text": "a"}]\n',
        "broken.jsonl": '{"text": "a"}\n{"text": \n',
        "number.jsonl": '{"text": 3}\n',
        "null.jsonl": '{"generated": null}\n',
        "nokey.jsonl": '{"txet": "a"}\n',
        "generatd.jsonl": '{"generatd": "a"}\n',
        "surrogate.jsonl": '{"text": "\\ud800"}\n',
        "deep.jsonl": "[" * 200_000 + "\n",
        "ragged.csv": "text,more\na,b\nc\n",
        "quote.csv": 'text\n"a\n',
        "file.docx": "one word\n",
        "two.txt": "one\ntwo\n",
        "twice.jsonl": '{"id": 1, "reference": "a"}\n{"id": 1, "reference": "b"}\n',
        "text.parquet": "no parquet\n",
        "text.txt.gz": "not zipped\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.txt").write_bytes(bytes(range(256)))
    (folder / "binary.jsonl").write_bytes(b"\x00\x01\x02" * 100)
    (folder / "latin.txt").write_bytes("schön\n".encode("latin-1"))
    (folder / "latin.jsonl").write_bytes('{"generated": "schön"}\n'.encode("latin-1"))
    (folder / "utf16.txt").write_text("one word\n", encoding="utf-16")
    zipped = gzip.compress(os.urandom(5000).hex().encode())
    (folder / "cut.txt.gz").write_bytes(zipped[: len(zipped) // 2])


def write_settings(folder: Path) -> None:
    texts = {
        "good.toml": "seed = 1\n",
        "unknown.toml": "sede = 1\n",
        "type.toml": 'seed = "x"\n',
        "nan.toml": "lr = nan\n",
        "infinite.toml": "weight_decay = inf\n",
        "negative.toml": "steps = -5\n",
        "huge.toml": "batch_size = 1000000000000000\n",
        "syntax.toml": "seed = = 1\n",
        "large.toml": "# " + "x" * 300_000,
        "deep.toml": "a = " + "[" * 5000,
        "double.toml": "seed = 1\nseed = 2\n",
        "two.toml": "sede = 1\nlr = -1\n",
        "settings.ini": "seed = 1\n",
        "twice.yaml": "seed: 1\nseed: 2\n",
        "tag.yaml": "seed: !!python/object/apply:os.system ['true']\n",
        "deep.yaml": "a: " + "[" * 5000,
        "bomb.yaml": "bomb:\n  a: &a [x,x,x,x,x,x,x,x]\n"
        + "".join(f"  {chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)),
        "scalar.yaml": "just text\n",
        "tab.yaml": "a:\n\t- b\n",
        "sampler.yaml": "- {sampling_method: od, num_sampling_steps: [4]}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.toml").write_bytes(bytes(range(256)))
    (folder / "latin.yaml").write_bytes("task: schön\n".encode("latin-1"))


def write_data(folder: Path) -> None:
    rows = {
        "ids-negative": {"input_ids": [[1, -3]]},
        "ids-large": {"input_ids": [[1, 2], [1, 40_000_000]]},
        "ids-float": {"input_ids": [[1.0, 2.0]]},
        "ids-text": {"input_ids": ["one two"]},
        "ids-missing": {"inputs_ids": [[1, 2]]},
        "ids-null": {"input_ids": [[1, 2], None]},
    }
    for name, columns in rows.items():
        datasets.Dataset.from_dict(columns).save_to_disk(folder / name)
        shutil.copytree(folder / "data" / "tokenizer", folder / name / "tokenizer")
    datasets.Dataset.from_dict({"input_ids": [[1, 2]]}).save_to_disk(folder / "no-tokenizer")
    for name in ("cut", "state", "metadata", "tokenizer", "dict"):
        shutil.copytree(folder / "data", folder / f"damaged-{name}")
    arrow = next((folder / "damaged-cut").rglob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    next((folder / "damaged-state").rglob("state.json")).write_text("{")
    (folder / "damaged-metadata" / "elf_data.json").write_text("{")
    (folder / "damaged-tokenizer" / "tokenizer" / "tokenizer.json").write_text("{")
    (folder / "damaged-dict" / "dataset_dict.json").write_text("[]")


def write_weights(folder: Path) -> None:
    (folder / "checkpoint_5").write_bytes(os.urandom(1000))
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (folder / "absurd.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "weights.pt").write_bytes(b"\x80\x04.")
    (folder / "code.pt").write_bytes(pickle.dumps(os.getcwd))
    (folder / "encoder.pkl").write_bytes(pickle.dumps({"params": os.getcwd}))
    (folder / "t5").mkdir()
    (folder / "t5" / "config.json").write_text('{"model_type": "bert"}')
    (folder / "gpt").mkdir()
    (folder / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    from safetensors.numpy import load_file, save_file

    llama = GOLDENS / "judges" / "llama"  # 50 tokens; the tokenizer of the data has 26
    config = json.loads((llama / "config.json").read_text())
    for name, size in (("small", 20), ("shards", 50)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
    arrays = load_file(llama / "model.safetensors")
    cut = {name: array[:20].copy() if len(array) == 50 else array for name, array in arrays.items()}
    save_file(cut, folder / "small" / "model.safetensors")
    places = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(arrays)}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    save_file({"other": np.zeros(3, np.float32)}, folder / "other.safetensors")


def write_runs(folder: Path) -> None:
    run = folder / "run"
    for name in ("no-checkpoint", "bad-config", "bad-weights", "bad-metrics", "bad-environment", "file-checkpoints"):
        shutil.copytree(run, folder / name)
    shutil.rmtree(folder / "no-checkpoint" / "checkpoints")
    (folder / "bad-config" / "config.toml").write_text("seed = [\n")
    for file in (folder / "bad-weights" / "checkpoints").rglob("d/*"):
        file.write_bytes(b"\x00")
    (folder / "bad-metrics" / "metrics.jsonl").write_text('{"stepp": 1}\n{"step": 2}\n')
    (folder / "bad-environment" / "environment.json").write_text("{")
    for name, line in {
        "swept": '{"setting": {}, "scores": [], "seconds": 1, "of": {"step": 77}}',
        "bad-sweep": "{}",
    }.items():
        (folder / name).mkdir()
        (folder / name / "results.jsonl").write_text(line + "\n")
    shutil.rmtree(folder / "file-checkpoints" / "checkpoints")
    (folder / "file-checkpoints" / "checkpoints").write_text("")
