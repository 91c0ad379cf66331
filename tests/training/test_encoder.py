"""`elf encoder`: what is masked, who sees whom, and that its folder is a T5 encoder, complete or absent."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from helpers import same
from tiny_run import SETTINGS, tiny_run

from elfcli.config.resolve import resolve
from elfcli.config.schema import EncoderSettings
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data.batches import collate
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import ElfError, InputError, Stopped
from elfcli.models.encoder import encoder_mask
from elfcli.parallel.mesh import make_mesh, replicate
from elfcli.training import encoder, masked
from elfcli.training.encoder import LATENTS_FILE, make_task, open_corpus, token_counts, train_encoder
from elfcli.training.start import start_run
from elfcli.weights.encoder import load_encoder
from elfcli.weights.t5 import load_t5

STEPS = 30


@pytest.fixture(scope="module")
def data():
    return tiny_run().parent / "data"


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    return train_encoder(data, tmp_path_factory.mktemp("encoder") / "enc", steps=STEPS, seed=3)


@pytest.fixture(scope="module")
def corpus(data):
    return open_corpus(data)


@pytest.fixture
def own_data(data, tmp_path):
    return shutil.copytree(data, tmp_path / "data")


def test_the_folder_is_an_encoder_and_a_tokenizer(folder, data, corpus):
    report = json.loads((folder / LATENTS_FILE).read_text())
    tokenizer = load_tokenizer(folder)
    assert tokenizer("one word 3 and 2").input_ids == load_tokenizer(data / "tokenizer")("one word 3 and 2").input_ids
    found = load_encoder(EncoderSettings(encoder_model_name=str(folder)), vocab_size(tokenizer))
    assert (report["vocab_size"], report["steps"], report["seed"]) == (found.vocab_size, STEPS, 3)
    assert report["data_fingerprint"] == corpus.train.fingerprint and report["measured_on"] == "train"
    batch = collate([corpus.train.tokens[i] for i in range(32)], max_length=64, max_input_length=32, pad_id=1)
    mask = encoder_mask(batch["cond_mask"], batch["valid_mask"], np.zeros(32, bool))
    latents = np.asarray(found.apply(found.params, batch["input_ids"], mask))[batch["valid_mask"]]
    assert latents.mean() == pytest.approx(report["latent_mean"], abs=1e-5)
    assert latents.std() == pytest.approx(report["latent_std"], rel=1e-4)


def test_transformers_reads_the_same_encoder(folder, corpus):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder))
    shape, params = load_t5(str(folder))
    ours = (shape.d_model, shape.d_kv, shape.d_ff, shape.num_layers, shape.num_heads, shape.vocab_size, shape.gated)
    theirs = (config.d_model, config.d_kv, config.d_ff, config.num_layers, config.num_heads, config.vocab_size)
    assert ours == (*theirs, config.is_gated_act) and config.architectures == ["T5EncoderModel"]
    torch = pytest.importorskip("torch")
    from transformers import T5EncoderModel

    ids = np.asarray(corpus.train.tokens[0]["input_ids"])[None]
    with torch.no_grad():
        expected = T5EncoderModel.from_pretrained(str(folder))(torch.tensor(ids)).last_hidden_state.numpy()
    np.testing.assert_allclose(masked.apply_t5(shape, params, ids, np.ones_like(ids)), expected, atol=1e-5)


def test_training_lowers_the_loss_and_what_is_written_is_what_was_trained(folder, corpus):
    task = make_task(corpus)
    before = replicate(encoder.first_params(task, corpus, 3), make_mesh())
    after = encoder.trained(task, corpus, before, STEPS, 3)
    assert same(jax.device_get(masked.encoder_params(after)), load_t5(str(folder))[1])
    rows = [row for i in range(32) for row in corpus.train.tokens[i].values()]
    assert token_counts(corpus.train.tokens, 26).tolist() == np.bincount(np.concatenate(rows), minlength=26).tolist()
    first, last = (encoder.measured(task, corpus, params, make_mesh()) for params in (before, after))
    assert last["masked_accuracy"] > first["masked_accuracy"] + 0.05
    assert last["token_accuracy"] > 0.9
    batch = next(encoder.stream(corpus, 3, 1, make_mesh()))
    states = [(params, masked.OPTIMIZER.init(params)) for params in (before, after)]
    losses = [masked.train_step(task, state, batch, 0.0, jax.random.key(5))[1] for state in states]
    assert losses[1] < 0.9 * losses[0]


def test_packed_examples_have_the_latents_that_they_have_alone(corpus):
    task = make_task(corpus)
    params = masked.initial_params(task, 0, np.ones(26))
    lengths = {"max_length": 24, "max_input_length": 6, "pad_id": 1}
    rows = [{**corpus.train.tokens[i], "input_ids": corpus.train.tokens[i]["input_ids"][: 2 + i]} for i in range(7)]
    packed = masked.pack([*rows, {"input_ids": []}], rows=4, **lengths)
    assert (np.diff(packed["segment"], axis=1) > 0).any(), "no row holds several examples"
    together = masked.latents(task, params, packed["input_ids"], masked.mask_of(packed, np.zeros(4, bool)))
    alone = collate(rows, **lengths)
    mask = encoder_mask(alone["cond_mask"], alone["valid_mask"], np.zeros(7, bool))
    expected = np.asarray(masked.latents(task, params, alone["input_ids"], mask))
    by_length = sorted(range(7), key=lambda i: -alone["valid_mask"][i].sum())
    for segment, example in enumerate(by_length, 1):
        here, valid = (packed["segment"] == segment) & packed["valid_mask"], alone["valid_mask"][example]
        assert packed["input_ids"][here].tolist() == alone["input_ids"][example, valid].tolist()
        assert packed["cond_mask"][here].tolist() == alone["cond_mask"][example, valid].tolist()
        np.testing.assert_allclose(np.asarray(together)[here], expected[example, valid], atol=1e-5)


def test_a_fifth_of_the_tokens_is_masked_and_padding_never(corpus):
    task = make_task(corpus)
    ids = np.tile(np.arange(3, 13), (400, 2))
    valid = np.arange(20) < np.where(np.arange(400) % 2, 20, 5)[:, None]
    new, positions, chosen = map(np.asarray, masked.corrupt(jax.random.key(0), task, ids, valid))
    assert chosen.sum(1).tolist() == [1, 4] * 200
    assert np.take_along_axis(valid, positions, 1)[chosen].all()
    assert all(len(set(row)) == len(row) for row in positions.tolist())
    changed = new != ids
    assert 0.8 < changed.sum() / chosen.sum() < 0.98 and (new[changed] == task.mask_id).mean() > 0.8
    assert not changed[~valid].any()
    assert task.mask_id == corpus.tokenizer.unk_token_id


def test_the_default_place_is_in_the_data_folder_and_is_not_overwritten(own_data, monkeypatch):
    kept = train_encoder(own_data, steps=1)
    assert kept == own_data / "encoder"
    before = (kept / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        train_encoder(own_data, steps=1)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder, "save_t5", full)
    with pytest.raises(InputError, match="No space left"):
        train_encoder(own_data, steps=1, seed=1, overwrite=True)
    assert (kept / "model.safetensors").read_bytes() == before
    with pytest.raises(InputError, match="No space left"):
        train_encoder(own_data, own_data / "other", steps=1)
    assert not [path for path in own_data.iterdir() if path.name == "other" or path.name[0] == "."]
    monkeypatch.undo()
    train_encoder(own_data, steps=1, seed=1, overwrite=True)
    assert (kept / "model.safetensors").read_bytes() != before
    assert not [path for path in own_data.iterdir() if path.name[0] == "."]
    (own_data / "mine").mkdir()
    with pytest.raises(InputError, match="no encoder"):
        train_encoder(own_data, own_data / "mine", steps=1, overwrite=True)


def test_a_stop_request_and_a_lost_loss_leave_nothing(own_data, monkeypatch):
    whole = encoder.stream

    def stopping(*arguments):
        for number, batch in enumerate(whole(*arguments)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)  # the watcher thread takes it
            yield batch

    monkeypatch.setattr(encoder, "stream", stopping)
    with pytest.raises(Stopped, match=r"SIGTERM: stopped after step 3 of 9; nothing was written"):
        train_encoder(own_data, steps=9)
    monkeypatch.undo()
    monkeypatch.setattr(encoder, "OPTIMIZATION", encoder.OPTIMIZATION.model_copy(update={"lr": float("nan")}))
    with pytest.raises(ElfError, match="not finite"):
        train_encoder(own_data, steps=3)
    assert not (own_data / "encoder").exists()


def test_minutes_become_steps_or_are_told_to_be_too_few(own_data, monkeypatch):
    monkeypatch.setattr(encoder, "seconds_per_step", lambda run, **how: run() and 0.5)
    with pytest.raises(InputError, match=r"a step takes 0\.5 s, and \d+ steps fit where 20 are the least"):
        train_encoder(own_data, deadline=time.monotonic() + 8)
    assert not (own_data / "encoder").exists()
    monkeypatch.setattr(encoder, "trained", lambda task, corpus, params, steps, seed: params)
    made = train_encoder(own_data, deadline=time.monotonic() + 100)
    assert 100 < json.loads((made / LATENTS_FILE).read_text())["steps"] < 190


def test_ten_lines_are_enough(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"a short line number {i}\n" for i in range(10)))
    tokenize(Job(tmp_path / "data", inputs=(str(tmp_path / "text.txt"),), train_tokenizer=27))
    corpus = open_corpus(tmp_path / "data")
    batch = next(encoder.stream(corpus, 0, 1, make_mesh()))
    assert corpus.batch_size <= 10 and batch["valid_mask"].sum() > 0 and not batch["cond_mask"].any()


@pytest.mark.slow
def test_a_run_trains_on_the_encoder(folder, data, tmp_path):
    sets = [*SETTINGS, f"encoder_model_name={folder}", "latent_mean=measure", "latent_std=measure", "steps=1"]
    flags = {"data_path": str(data)}
    run = start_run(resolve(task="toy-de-en", sets=sets, flags=flags, environ={}), tmp_path / "run")
    assert (run / "checkpoints" / "1").is_dir()


def test_data_without_its_tokenizer(own_data):
    shutil.rmtree(own_data / "tokenizer")
    with pytest.raises(InputError, match="no tokenizer in it"):
        train_encoder(own_data, steps=1)
