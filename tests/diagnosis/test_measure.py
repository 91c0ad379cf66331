"""Planted faults: `elf doctor` names each of them first, and finds none in a healthy model.

`pytest -m slow tests/diagnosis/test_measure.py` trains a small network for each fault, a minute each on two cores.
"""

import json
from random import Random

import pytest

from elfcli.config.resolve import resolve
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.training.start import start_run

SETTINGS = [
    *("hidden_size=64", "depth=3", "num_heads=2", "embedding_dim=32", "bottleneck_dim=32", "max_length=14"),
    *("max_input_length=7", "batch_size=32", "steps=500", "log_every_steps=10", "save_every_epochs=0"),
]
"""Learns the task below in a minute: BLEU 98 and above."""
FAULTS = {
    "healthy": ([], "nothing"),
    "ema-too-long": (["ema_decay=0.9999"], "ema.initial_share"),
    "latent-std": (["latent_std=0.2"], "latents.std"),
    "vocabulary": (["tokenizer_name={folder}/other/tokenizer"], "data.same_tokenizer"),
    "sources-cut": (["max_input_length=3"], "data.sources_cut"),
    "lr-too-high": (["lr=1.0"], "learning_rate: too high"),
    "lr-too-low": (["lr=1e-4"], "learning_rate: too low"),
    "decoder-untrained": (["decoder_prob=0"], "decoder.clean"),
    "too-few-steps": (["steps=40"], "steps"),
    "decoder-noise": (["decoder_noise_scale=20"], "noise.decoder"),
    "noise-of-texts": (["max_input_length=0", "denoiser_noise_scale=4", "decoder_noise_scale=10"], "noise.denoiser"),
}
"""Settings that plant each fault, and how the advice to try first begins."""
SOUNDS = "ka-bar lo-cod mi-dim ne-fen pu-gul ra-hot si-jam to-kin ve-lop wu-mud xa-nap zo-pit"
VOCABULARIES = {"data": (76, (("bex", "ow"), ("gim", "um"))), "other": (77, (("rin", "ly"), ("tos", "er")))}
"""Number of pieces, so that every word is one, and the endings of words in both languages."""


def write_pairs(path, words, count, seed):
    """Sentences of three to six words and their translation word by word."""
    random = Random(seed)
    with path.open("w") as file:
        for _ in range(count):
            chosen = random.choices(words, k=random.randint(3, 6))
            row = {"input": " ".join(a for a, _ in chosen), "output": " ".join(b for _, b in chosen)}
            file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """`data` to train on, and `other`: data of other words, whose tokenizer has no fewer pieces."""
    folder = tmp_path_factory.mktemp("doctor")
    for name, (pieces, ends) in VOCABULARIES.items():
        words = [(a + c, b + d) for a, b in (pair.split("-") for pair in SOUNDS.split()) for c, d in ends]
        files = folder / f"{name}.jsonl", folder / f"{name}-valid.jsonl"
        for seed, (file, count) in enumerate(zip(files, (4000, 200), strict=True)):
            write_pairs(file, words, count, seed)
        keys = {"source_key": "input", "target_key": "output", "train_tokenizer": pieces}
        tokenize(Job(folder / name, inputs=(str(files[0]),), validation=(str(files[1]),), **keys))
    write_texts(folder / "texts.jsonl", 4000)
    tokenize(Job(folder / "texts", inputs=(str(folder / "texts.jsonl"),), train_tokenizer=420))
    return folder


def write_texts(path, count):
    """Free texts of 400 words, the rarest a hundred times as rare as the first; each word chooses the next few."""
    random, syllables = Random(5), [pair.replace("-", "") for pair in SOUNDS.split()]
    words = [a + b + c for a in syllables for b in syllables for c in ("", "s", "t")][:400]
    with path.open("w") as file:
        for _ in range(count):
            number, text = int(400 * random.random() ** 3), []
            for _ in range(random.randint(5, 9)):
                text.append(words[number])
                number = (7 * number + int(400 * random.random() ** 4)) % 400
            file.write(json.dumps({"text": " ".join(text)}) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(elf, world, fault):
    planted, named = FAULTS[fault]
    sets = [*SETTINGS, *(text.format(folder=world) for text in planted)]
    data = world / ("texts" if fault == "noise-of-texts" else "data")
    settings = resolve(task="toy-de-en", sets=sets, flags={"data_path": str(data)}, environ={})
    run = start_run(settings, world / fault)
    code, out, err = elf("doctor", run, "-n", 32, "--json", world / f"{fault}.json")
    print(out)
    assert code == 0, err
    found = json.loads((world / f"{fault}.json").read_text())
    assert found["first"].startswith(named), found["first"]
    failing = [check for check in found["checks"] if check["verdict"] == "fail"]
    assert bool(failing) == bool(planted)
    assert all(check["advice"] for check in failing)
    if not planted:
        assert all(check["verdict"] == "ok" for check in found["checks"])
