"""Hostile files: every reader gives a clean error or a valid result, in bounded memory and time, and runs nothing."""

import io
import json
import os
import pickle
import pickletools
import random
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from helpers import GOLDENS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import tiny_run

from elfcli.config.files import read_settings_file
from elfcli.config.resolve import resolve
from elfcli.data.folder import load_examples
from elfcli.errors import ElfError, InputError
from elfcli.runs.checkpoint import load_weights
from elfcli.runs.seal import MANIFEST_FILE
from elfcli.scoring.samples_file import read_samples
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.files import read_safetensors
from elfcli.weights.names import read_export_note
from elfcli.weights.open import open_source
from elfcli.weights.pickles import read_torch
from elfcli.weights.reference import elf_to_reference, read_reference_checkpoint

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GENEROUS = 64_000_000  # bytes; the files are a few kilobytes


@pytest.fixture(scope="module")
def params():
    return load_weights(tiny_run())[0]


@pytest.fixture(scope="module")
def good(params, tmp_path_factory) -> dict[str, Path]:
    """A valid file for each reader."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("good")
    flat = elf_to_reference(params)
    save_file(flat, folder / "model.safetensors")
    tree = {"params": unflatten_dict(flat, sep="/"), "step": 3, "epoch": 1}
    (folder / "checkpoint_3").write_bytes(msgpack_serialize(tree))
    (folder / "encoder.pkl").write_bytes(pickle.dumps({"params": {"shared": {"embedding": np.ones((4, 2))}}}))
    for name, kind in (("new.bin", "mt5"), ("old.bin", "byt5")):
        shutil.copy(GOLDENS / "encoders" / kind / "pytorch_model.bin", folder / name)
    (folder / "samples.jsonl").write_text('{"id": 1, "generated": "one word"}\n' * 3)
    shutil.copy(tiny_run() / "config.toml", folder / "config.toml")
    (folder / "config.yaml").write_text("optimization: {lr: 1e-3}\nseed: 3\nsampling:\n- {cfgs: [1, 2]}\n")
    return {path.name: path for path in folder.iterdir()}


READERS = {
    "model.safetensors": lambda path: (read_safetensors(path), open_source(path), read_export_note(path)),
    "checkpoint_3": read_reference_checkpoint,
    "encoder.pkl": read_encoder_pickle,
    "new.bin": read_torch,
    "old.bin": read_torch,
    "samples.jsonl": read_samples,
    "config.toml": lambda path: resolve(files=[path], environ={}),
    "config.yaml": lambda path: resolve(files=[path], environ={}),
}


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few changes of the kinds that find faults in readers."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(found) or 1)
        # Headers are what readers trust, so half of the changes fall there.
        place = draw.randrange(min(len(found) or 1, 400)) if draw.random() < 0.5 else place
        kind = draw.randrange(5)
        if kind == 0 and found:
            found[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found[place : place + draw.randint(1, 9)] = b""
        elif kind == 2:
            found[place:place] = draw.randbytes(draw.randint(1, 9))
        elif kind == 3:
            found[place : place + 4] = draw.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4, b"9999"])
        else:
            del found[place:]
    return bytes(found)


def clean(read, path: Path) -> None:
    """The reader returns, or raises a one-line error of ours."""
    try:
        read(path)
    except InputError as error:
        assert str(error) and len(str(error)) < 20_000
        assert "Traceback" not in str(error)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_bounded_memory_and_time(good, tmp_path, name):
    draw, data, path = random.Random(5), good[name].read_bytes(), tmp_path / name
    READERS[name](good[name])
    start = time.monotonic()
    tracemalloc.start()
    try:
        for _ in range(60):
            path.write_bytes(damaged(data, draw))
            clean(READERS[name], path)
            if time.monotonic() - start > 20:  # a slow machine does fewer
                break
        assert tracemalloc.get_traced_memory()[1] < GENEROUS
    finally:
        tracemalloc.stop()


@MANY
@given(data=st.binary(max_size=300), name=st.sampled_from(sorted(READERS)))
def test_any_bytes_are_refused_cleanly(tmp_path, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    clean(READERS[name], path)


@MANY
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    key=st.sampled_from(["lr", "sampling", "steps", "metrics", "task", "data", "network", "latent_std", "complete"]),
)
def test_any_value_of_a_setting_is_taken_or_refused(tmp_path, value, key):
    path = tmp_path / "any.yaml"
    path.write_text(json.dumps({key: value}, allow_nan=True), encoding="utf-8")
    clean(lambda file: (read_settings_file(file), resolve(files=[file], environ={})), path)


def bomb(first: bytes, line: bytes) -> bytes:
    """Each line holds the one before nine times."""
    names = range(ord("b"), ord("k"))
    return first + b"".join(line % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in names)


SETTINGS_FILES = {
    "nul.yaml": b"seed: 1\0\n",
    "only nul.yaml": b"\0" * 1000,
    "control character.yaml": b"seed: 1\x07\n",
    "twice.yaml": b"training: {seed: 1, seed: 2}\n",
    "twice by a merge.yaml": b"a: &a {seed: 1}\n<<: *a\nseed: 2\nseed: 3\n",
    "a call.yaml": b"seed: !!python/object/apply:os.getcwd []\n",
    "a name.yaml": b"seed: !!python/name:os.system\n",
    "a tag of its own.yaml": b"seed: !x 1\n",
    "a set.yaml": b"metrics: !!set {bleu, rouge}\n",
    "bytes.yaml": b"task: !!binary abc\n",
    "a list as key.yaml": b"? [a, b]\n: 1\n",
    "two documents.yaml": b"seed: 1\n---\nseed: 2\n",
    "an alias of nothing.yaml": b"seed: *a\n",
    "an alias of itself.yaml": b"a: &a [*a]\n",
    "a merge of itself.yaml": b"a: &a {<<: *a}\n",
    "deep.yaml": b"- " * 5000,
    "deep blocks.yaml": b"".join(b" " * i + b"a:\n" for i in range(400)),
    "deep maps.yaml": b"a: " + b"{a: " * 5000,
    "a bomb of lists.yaml": bomb(b"a: &a [x]\n", b"%c: &%c [%s]\n"),
    "a bomb of merges.yaml": bomb(b"a: &a {x: 1}\n", b"%c: &%c {<<: [%s]}\n"),
    "too many digits.yaml": b"seed: " + b"9" * 5000,
    "infinite.yaml": b"lr: 1e99999\n",
    "nul.toml": b"seed = 1\0\n",
    "utf16.toml": "seed = 1\n".encode("utf-16"),
    "twice.toml": b"data.task = 'a'\n[data]\ntask = 'b'\n",
    "deep.toml": b"a = " + b"{a=" * 5000,
    "a date.toml": b"seed = 1979-05-27\n",
    "half a surrogate.toml": b'task = "\\uD800"\n',
    "many keys.toml": b"".join(b"a%d = 1\n" % i for i in range(1000)),
    "hexadecimal.yaml": b"seed: 0x" + b"f" * 50_000,
    "base sixty.yaml": b"seed: " + b":".join([b"59"] * 3000),
    "no bool.yaml": b"online_eval: !!bool x\n",
    "many digits.toml": b"seed = " + b"9" * 5000,
    "hexadecimal.toml": b"seed = 0x" + b"f" * 50_000,
    "many digits.yaml": b"seed: " + b"9" * 200_000,
    "a dotted key.toml": b".".join([b"a"] * 50_000) + b" = 1\n",
    "a dotted table.toml": b"[" + b".".join([b"a"] * 50_000) + b"]\n",
}  # fmt: skip


@pytest.mark.parametrize(("name", "data"), SETTINGS_FILES.items(), ids=[*SETTINGS_FILES])
def test_hostile_settings_are_refused_in_one_go(tmp_path, name, data):
    """Nothing is run, what is wrong is said by line, and it takes little time and memory."""
    path = tmp_path / name
    path.write_bytes(data)
    resolve(environ={})  # the schema is made once
    start = time.monotonic()
    with pytest.raises(InputError) as refused:
        resolve(files=[path], environ={})
    assert time.monotonic() - start < 10
    tracemalloc.start()  # takes most of the time itself, so what is timed is not traced
    try:
        with pytest.raises(InputError):
            resolve(files=[path], environ={})
        assert tracemalloc.get_traced_memory()[1] < GENEROUS
    finally:
        tracemalloc.stop()
    assert all(name in line for line in str(refused.value).splitlines())


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 50_000, "[" * 5000, "[" + "9" * 5000 + "]"])
def test_hostile_values_on_the_command_line(value):
    for options in ({"sets": [f"seed={value}"], "environ": {}}, {"environ": {"ELF_SEED": value}}):
        with pytest.raises(InputError, match=r"(seed|ELF_SEED): expected a whole number") as refused:
            resolve(**options)
        assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


def bucket(*operations: bytes) -> bytes:
    return b"\x80\x04" + b"".join(operations) + b"."


PICKLES = {
    "a call": pickle.dumps(os.getcwd),
    "an old class": b"cos\nsystem\n(S'true'\ntR.",
    "a dotted name": bucket(b"\x8c\x05numpy", b"\x8c\x10ndarray.__init__", b"\x93"),
    "a huge string": bucket(b"\x8d", struct.pack("<Q", 2**40)),
    "a huge bytearray": bucket(b"\x96", struct.pack("<Q", 2**40)),
    "a huge memo": bucket(b"N", b"r", struct.pack("<I", 2**31 - 1)),
    "deep nesting": bucket(b"(" * 200_000),
    "lists in lists": bucket(b"]" * 100_000 + b"a" * 99_999),
    "doubling": bucket(b"]2" + b"la" * 10),
    "an extension": bucket(b"\x82\x01"),
    "a persistent id": bucket(b"Pabc\n"),
    "nothing": b"",
}


def array_pickle(shape) -> bytes:
    """A numpy array that claims another shape than its bytes have."""
    data = pickle.dumps({"params": {"a": np.zeros((3, 5), np.float32)}}, protocol=2)
    ours = io.BytesIO()
    pickle.Pickler(ours, protocol=2).dump((3, 5))
    old, new = ours.getvalue()[2:-1], pickle.dumps(shape, protocol=2)[2:-1]
    strip = lambda part: part.split(b"q\x00")[0]  # noqa: E731
    assert strip(old) in data
    return data.replace(strip(old), strip(new))


PICKLES["a shape of its own"] = array_pickle((2**31 - 1, 255))
PICKLES["a negative shape"] = array_pickle((-3, -5))

LIMITED = """
import resource, time
from pathlib import Path
from elfcli.weights.encoder_pickle import read_encoder_pickle
from elfcli.weights.reference import read_reference_checkpoint
from elfcli.weights.files import read_safetensors
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 1_500_000_000,) * 2)
readers = {{".pkl": read_encoder_pickle, ".msgpack": read_reference_checkpoint, ".safetensors": read_safetensors}}
for path in sorted(Path({folder!r}).iterdir()):
    start = time.monotonic()
    try:
        readers[path.suffix](path)
    except Exception as error:
        print(path.name, type(error).__name__, str(error).replace(chr(10), "|")[:300], sep="\t")
    else:
        print(path.name, "read", sep="\t")
    assert time.monotonic() - start < 5, path
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("peak", peak)
"""


def test_bombs_are_refused_under_a_memory_limit(tmp_path):
    """Files of a few bytes that ask for terabytes, or for calls, in a process that may not have them."""
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    for name, data in PICKLES.items():
        (bombs / f"{name.replace(' ', '-')}.pkl").write_bytes(data)
    shape = msgpack_serialize({"a": np.zeros(3)}).replace(b"\x03", b"\x7f")
    packed = {
        "map": b"\xdf\xff\xff\xff\xff",
        "array": b"\xdd\xff\xff\xff\xff",
        "string": b"\xdb\xff\xff\xff\xff",
        "deep": b"\x91" * 100_000,
        "extension": b"\xc9\xff\xff\xff\xff\x01",
        "shape": shape,
    }
    for name, data in packed.items():
        (bombs / f"{name}.msgpack").write_bytes(data)
    for name, claim in {"large": [2**40], "overflow": [2**62, 2**62], "negative": [-1]}.items():
        header = json.dumps({"a": {"dtype": "F32", "shape": claim, "data_offsets": [0, 4]}}).encode()
        (bombs / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    (bombs / "header.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    code = LIMITED.format(folder=str(bombs))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert len(rows) == len(list(bombs.iterdir()))
    assert [row for row in rows if row[1] != "InputError" or "|" in row[2]] == []


def test_pickles_of_arrays_are_what_the_bombs_are_made_of():
    """The array with a shape of its own is a well-formed pickle, so it is numpy's check that refuses it."""
    for name in ("a shape of its own", "a negative shape"):
        pickletools.dis(PICKLES[name], io.StringIO())


def test_orbax_metadata(good, tmp_path):
    """An Orbax checkpoint of the reference with each of its small files changed in turn."""
    import orbax.checkpoint as ocp

    folder = tmp_path / "checkpoint_7"
    tree = {"params": {"a": np.ones((2, 2), np.float32)}, "step": 7, "epoch": 1}
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(folder, tree)
    draw = random.Random(7)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            whole = path.read_bytes()
            for _ in range(3):
                path.write_bytes(damaged(whole, draw))
                with pytest.raises(InputError):
                    read_reference_checkpoint(folder)
            path.write_bytes(whole)


def test_checkpoints_and_data_of_ours(tmp_path):
    """A run's checkpoint that was never sealed, and a data folder, each with every file changed in turn."""
    run = Path(shutil.copytree(tiny_run(), tmp_path / "run"))
    (run / "checkpoints" / "3" / MANIFEST_FILE).unlink()
    data = Path(shutil.copytree(tiny_run().parent / "data", tmp_path / "data"))

    def read_data():
        examples = load_examples(str(data), None)
        return [examples.tokens[row] for row in range(len(examples))]

    draw, outcomes = random.Random(9), []
    for folder, read in ((run / "checkpoints" / "3", lambda: load_weights(run)), (data, read_data)):
        for path in [path for path in sorted(folder.rglob("*")) if path.is_file() and "tokenizer" not in path.parts]:
            whole = path.read_bytes()
            for _ in range(2):
                path.write_bytes(damaged(whole, draw))
                try:
                    read()
                    outcomes.append("read")
                except ElfError as error:
                    assert "\n" not in str(error)
                    outcomes.append("refused")
            path.write_bytes(whole)
        read()
    assert outcomes.count("refused") > 10


def test_names_in_files_do_not_leave_their_folder(tmp_path):
    """An index of weights that names a file elsewhere."""
    from elfcli.weights.files import weights

    (tmp_path / "model").mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"")
    index = tmp_path / "model" / "model.safetensors.index.json"
    for name in ("../secret.safetensors", str(tmp_path / "secret.safetensors")):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="secret"):
            weights(str(tmp_path / "model"), "model")
    for content in ("{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(content)
        with pytest.raises(InputError):
            weights(str(tmp_path / "model"), "model")


def test_secrets_on_the_command_line_are_not_recorded(tmp_path, monkeypatch):
    from elfcli.runs import folder as run

    secret = "hf_" + "A1b2C3d4" * 4
    monkeypatch.setenv("WANDB_API_KEY", "0123456789secret")
    monkeypatch.setattr(sys, "argv", ["elf", "train", "-s", f"hf_repo_id={secret}", "0123456789secret", "--steps=3"])
    run.record_environment(tmp_path)
    text = (tmp_path / run.ENVIRONMENT_FILE).read_text()
    assert secret not in text and "0123456789secret" not in text and "--steps=3" in text
    assert not any(value in text for name, value in os.environ.items() if "TOKEN" in name and len(value) > 7)
    with pytest.raises(ElfError):
        (tmp_path / run.ENVIRONMENT_FILE).write_text("{")
        run.record_environment(tmp_path)
