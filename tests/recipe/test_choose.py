"""What `elf train` chooses for data of one's own, and when it warns or refuses."""

import json
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers import SHARED
from tiny_run import tiny_run

from elfcli.config.cards import read_cards
from elfcli.config.resolve import changed, load_config, resolve
from elfcli.config.schema import SECTION_OF
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data.folder import load_examples
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.diagnosis.checks import Check
from elfcli.errors import ElfError, InputError
from elfcli.planning.plan import settings_to_plan
from elfcli.recipe import choose as recipe
from elfcli.recipe import explain
from elfcli.recipe.apply import complete
from elfcli.recipe.card import derived_report, position_seconds
from elfcli.recipe.cooccurrence import token_vectors
from elfcli.recipe.defaults import with_overfit_length
from elfcli.recipe.encoder import encoder_of_vocabulary, require_same_vocabulary, with_encoder
from elfcli.recipe.vectors import make_vectors, vectors_folder
from elfcli.runs.examples import open_examples
from elfcli.sampling.sources import recorded_keys
from elfcli.training import memory, start
from elfcli.training.timing import RunTiming, steps_that_fit
from elfcli.weights.encoder import load_encoder

TINY = ["hidden_size=16", "depth=1", "num_heads=2", "bottleneck_dim=8", "embedding_dim=8", "num_workers=0"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data folders of 80 pairs (as CSV) and of 200 texts, most short and one long."""
    folder = tmp_path_factory.mktemp("own")
    pairs = [("de", "en"), *((f"ein wort {i % 7} und {i % 5}", f"one word {i % 7} and {i % 5}") for i in range(80))]
    (folder / "pairs.csv").write_text("".join(f"{a},{b}\n" for a, b in pairs))
    (folder / "held.csv").write_text("de,en\nein wort 6 und 6,one word 6 and 6\n")
    (folder / "texts.txt").write_text("one word and another\n" * 199 + "word " * 300 + "\n")
    keys = {"source_key": "de", "target_key": "en"}
    held = (str(folder / "held.csv"),)
    tokenize(Job(folder / "pairs", (str(folder / "pairs.csv"),), held, train_tokenizer=26, **keys))
    tokenize(Job(folder / "texts", (str(folder / "texts.txt"),), train_tokenizer=14))
    return folder


def settings(data, *sets, **flags):
    return resolve(sets=[*TINY, *sets], flags={"data_path": str(data)} | flags, environ={})


def values(resolved, *names):
    return {name: getattr(getattr(resolved.config, SECTION_OF[name]), name) for name in names}


def test_pairs_get_the_conditional_recipe_and_texts_the_other(folders):
    examples = load_examples(folders / "pairs")
    sources, targets = (c.lengths().max() for c in (examples.tokens.condition_input_ids, examples.tokens.input_ids))
    pairs = recipe.from_data(settings(folders / "pairs"), examples)
    up = [-(-longest // 8) * 8 for longest in (sources, targets)]
    names = ("max_length", "max_input_length", "pad_token", "metrics", "label_drop_prob", "decoder_noise_scale")
    assert list(values(pairs, *names).values()) == [sum(up), up[0], "eos", ("bleu",), 0.1, 1.0]
    assert pairs.config.network.text_position == up[0]
    assert pairs.origins["max_length"].layer == "from the data" and pairs.config.sampling[0].cfgs == (1.5,)
    texts = recipe.from_data(settings(folders / "texts"), load_examples(folders / "texts"))
    names = ("max_input_length", "label_drop_prob", "decoder_noise_scale")
    assert texts.config.network.text_position is None
    assert list(values(texts, *names).values()) == [0, 0.0, 5.0] and texts.config.sampling[0].sampling_method == "sde"
    assert texts.config.data.max_length < 64, "the one long text does not set the length"


def test_learning_by_heart_drops_no_source_and_asks_for_no_guidance(folders):
    given = settings(folders / "pairs", "overfit_examples=32")
    examples = open_examples(given.config)
    found = recipe.from_machine(recipe.from_data(given, examples), examples, "cpu", 1)
    assert values(found, "label_drop_prob", "batch_size") == {"label_drop_prob": 0.0, "batch_size": 8}
    assert (found.config.sampling[0].cfgs, found.config.sampling[0].candidates) == ((1.0,), 1)


@pytest.mark.parametrize(
    ("sets", "steps"),
    [([], 1000), (["overfit_examples=640"], 5000), (["steps=7"], 7), (["minutes=2"], None), (["epochs=3"], None)],
)
def test_the_length_of_learning_by_heart_is_chosen_where_it_is_not_set(sets, steps):
    found = with_overfit_length(resolve(task="toy-de-en", sets=["overfit_examples=64", *sets], environ={}))
    assert found.config.training.steps == steps


def test_what_the_user_sets_stays(folders):
    given = settings(
        folders / "pairs", "max_length=40", "label_drop_prob=0.3", "batch_size=4", "ema_decay=0.9", "minutes=1"
    )
    examples = load_examples(folders / "pairs")
    found = recipe.from_machine(recipe.from_data(given, examples), examples, "cpu", 1)
    found = recipe.from_length(recipe.with_measured_steps(found, 50), 80)
    names = ("max_length", "label_drop_prob", "batch_size", "ema_decay", "hidden_size", "steps")
    assert list(values(found, *names).values()) == [40, 0.3, 4, 0.9, 16, 50]


def test_a_task_and_a_file_of_the_reference_keep_their_recipes(tmp_path):
    (tmp_path / "theirs.yml").write_text("data_path: x\nmax_length: 64\n")
    assert recipe.uses_recipe(resolve(environ={}, sets=["data_path=x"]))
    assert not recipe.uses_recipe(resolve(task="de-en", environ={}))
    assert not recipe.uses_recipe(resolve(files=[tmp_path / "theirs.yml"], environ={}))


@pytest.mark.parametrize(
    ("backend", "tokens", "model"), [("cpu", 10**9, "ELF-XS"), ("tpu", 10**9, "ELF-B"), ("gpu", 10**6, "ELF-S")]
)
def test_the_machine_decides_the_network(backend, tokens, model):
    column = SimpleNamespace(lengths=lambda: np.array([tokens]))
    table = SimpleNamespace(input_ids=column, condition_input_ids=None)
    examples = type("Examples", (), {"tokens": table, "__len__": lambda self: 10**6})()
    found = recipe.from_machine(resolve(environ={}, sets=["max_length=64"]), examples, backend, 8)
    assert found.config.network.model == model and found.origins["hidden_size"].layer == "from the machine"
    assert found.config.training.batch_size % 8 == 0
    kept = recipe.from_machine(resolve(environ={}, model="ELF-M"), examples, backend, 8)
    assert kept.config.network.model == "ELF-M"
    deeper = recipe.from_machine(resolve(environ={}, sets=["depth=6"]), examples, backend, 8)
    assert values(deeper, "depth", "model") == {"depth": 6, "model": model}


def test_columns_are_known_where_the_data_is_not(folders, tmp_path):
    """Those of files to sample; settings of before say nothing, and their data does."""
    given = settings(folders / "pairs")
    moved = changed(complete(given, may_write=False).resolved, "data", None, data_path=str(tmp_path / "gone"))
    assert recorded_keys(given.config) == recorded_keys(moved.config) == (["de"], ["en"])
    texts = complete(settings(folders / "texts"), may_write=False).resolved
    assert texts.config.data.source_key is None and recorded_keys(texts.config) == ([], [])


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["hidden_size=32", "num_heads=3"], "--set: hidden_size 32 is not divisible by num_heads 3"),
        (["num_heads=3"], "from the machine and --set: hidden_size 128 is not divisible by num_heads 3"),
        (["min_lr=0.1"], "--set and from the run's length: min_lr 0.1 is above lr 0.008"),
        (["warmup_epochs=300"], "--set: warmup_epochs 300 is more than the 5 epochs"),
        (["hidden_size=160"], None),  # which 12 heads, the default, do not divide
    ],
)
def test_a_setting_is_compared_with_what_was_chosen(folders, sets, said):
    examples = load_examples(folders / "pairs")
    with pytest.raises(InputError, match=said) if said else nullcontext():
        given = resolve(sets=sets, flags={"data_path": str(folders / "pairs")}, environ={})
        recipe.from_length(complete(given, may_write=False).resolved, len(examples))


def test_a_plan_is_of_what_training_would_choose_there(folders):
    given = resolve(sets=["minutes=5"], flags={"data_path": str(folders / "pairs")}, environ={})
    found = settings_to_plan(given, SimpleNamespace(platform="tpu", devices=[None] * 8))
    names = ("model", "max_length", "batch_size", "encoder_model_name", "steps")
    assert list(values(found, *names).values()) == ["ELF-S", 32, 32, "embedding", None]
    assert not vectors_folder(load_examples(folders / "pairs")).exists(), "a plan writes nothing"
    task = resolve(task="de-en", environ={})
    assert settings_to_plan(task, SimpleNamespace(platform="cpu", devices=[None])) is task


def test_weights_to_start_from_bring_their_network_and_encoder(folders):
    given = resolve(sets=[f"data_path={folders / 'pairs'}", f"init_from={tiny_run()}", "embedding_seed=3"], environ={})
    found, theirs = complete(given, may_write=False).resolved, load_config(tiny_run() / "config.toml")
    assert found.config.network == theirs.network and found.origins["text_position"].layer == "from init_from"
    assert found.config.encoder == theirs.encoder.model_copy(update={"embedding_seed": 3}), "what is set stays"


def test_the_length_decides_the_average(folders, capsys):
    examples = load_examples(folders / "pairs")
    for steps in (40, 1000, 10**6):
        found = recipe.with_measured_steps(settings(folders / "pairs", "batch_size=8", "minutes=1"), steps)
        found = recipe.from_length(found, len(examples))
        horizon = 1 / (1 - found.config.optimization.ema_decay)
        assert horizon <= min(steps / 5, 10_001) and found.config.optimization.warmup_steps < steps / 10
        explain.report_settings(found, len(examples))
    assert "warning" not in capsys.readouterr().err
    explain.report_settings(settings(folders / "pairs", "steps=1000", "batch_size=8"), len(examples))
    err = capsys.readouterr().err
    assert "ema_decay 0.9999 averages over 10,000 steps" in err and "90% " in err


def test_minutes_and_steps_of_the_later_layer_count():
    assert resolve(task="toy-de-en", flags={"minutes": 5}, environ={}).config.training.steps is None
    assert resolve(sets=["minutes=3"], flags={"steps": 5}, environ={}).config.training.minutes is None
    assert resolve(sets=["minutes=3", "steps=5"], environ={}).config.training.steps == 5


def test_steps_that_fit_into_minutes(folders):
    config = settings(folders / "pairs", "minutes=2").config
    began = time.monotonic() - 20
    assert steps_that_fit(config, RunTiming(step=0.5, overhead=10.0), began) == pytest.approx(180, abs=2)
    with pytest.raises(InputError, match=r"--minutes 2 .* 9 s .* 3\.6"):
        steps_that_fit(config, RunTiming(step=9.0, overhead=10.0), began)


def test_what_does_not_fit_into_memory_is_refused_with_what_does(folders, monkeypatch):
    monkeypatch.setattr(memory, "least_memory", lambda: 2**30)
    monkeypatch.setattr(memory, "rough_bytes", lambda config, shape: 2**31)
    monkeypatch.setattr(memory, "num_params", lambda params: 0)
    monkeypatch.setattr(memory, "abstract_params", lambda shape: None)
    config = settings(folders / "pairs", "batch_size=64").config
    with pytest.raises(
        InputError, match=r"64 examples .* needs 2\.0 GiB .*--batch-size 16 \(which needs 0\.5 GiB\).*=4"
    ):
        memory.require_memory(config, None, lambda batch: batch * 2**25)
    with pytest.raises(InputError, match="no smaller batch fits"):
        memory.require_memory(config, None, lambda batch: 2**33)
    memory.require_memory(config, None, lambda batch: 2**29)


def test_a_batch_that_the_recipe_chose_is_divided(folders, monkeypatch):
    """What the refusal above advises is done where nobody asked for the batch; a batch that is set is refused."""
    monkeypatch.setattr(memory, "least_memory", lambda: 2**30)
    monkeypatch.setattr(memory, "rough_bytes", lambda config, shape: 2**31)
    monkeypatch.setattr(start, "needed_bytes", lambda resolved, inputs, batch: batch * 2**27)
    completed = complete(settings(folders / "pairs", "steps=600"), may_write=True)
    inputs = start.open_inputs_on_all(completed.resolved.config, completed.examples)
    found = start.with_fitting_batch(completed.resolved, inputs)
    names = ("batch_size", "grad_accum_steps")
    assert values(completed.resolved, *names) == {"batch_size": 32, "grad_accum_steps": 1}
    assert values(found, *names) == {"batch_size": 8, "grad_accum_steps": 4}
    assert found.origins["batch_size"].layer == "from the machine"
    with pytest.raises(InputError, match="--batch-size 8"):
        start.with_fitting_batch(complete(settings(folders / "pairs", "batch_size=32")).resolved, inputs)


@pytest.mark.parametrize(("width", "scales"), [(64, [0.71, 1.0]), (128, [1.0, 1.4]), (512, [2.0, 2.8])])
def test_the_noise_fits_the_latents(folders, width, scales):
    """As much of a token is hidden as by the paper's scale at T5-small's width; pairs keep the published scales."""
    names = ("denoiser_noise_scale", "decoder_noise_scale")
    for kind, expected, layer in (
        ("texts", scales, "from the latents"),
        ("pairs", [2.0, 1.0], "recipe for custom data"),
    ):
        given = resolve(sets=[f"embedding_dim={width}"], flags={"data_path": str(folders / kind)}, environ={})
        found = complete(given, may_write=False).resolved
        assert [*values(found, *names).values()] == expected
        assert found.origins["denoiser_noise_scale"].layer == layer
    paper = resolve(task="owt", environ={})
    assert [*values(paper, *names).values()] == [2.0, 5.0]
    preview = resolve(flags={"data_path": str(folders / "texts")}, environ={})
    assert values(complete(preview, may_write=False).resolved, *names[:1]) == {"denoiser_noise_scale": 0.71}


def test_batch_and_rate_of_an_accelerator(folders):
    """Small data has small batches and no fewer steps than on a CPU; large data has the authors' batch and rate."""
    tokens = load_examples(folders / "pairs").tokens

    class Many(SimpleNamespace):
        def __len__(self):
            return self.count

    found = {}
    for count in (17_000, 100_000, 10**6):
        examples = Many(tokens=tokens, count=count, path=str(folders / "pairs"), metadata=None)
        given = resolve(sets=["max_length=128"], flags={"model": "ELF-B"}, environ={})
        chosen = recipe.from_machine(given, examples, "gpu", 8)
        chosen = recipe.from_length(chosen, count)
        found[count] = [*values(chosen, "batch_size", "steps", "lr").values()]
    assert found == {17_000: [48, 10620, 0.0014], 100_000: [296, 10110, 0.0018], 10**6: [512, 58590, 0.002]}
    small = recipe.from_machine(
        resolve(sets=["max_length=64"], environ={}), Many(**vars(examples) | {"count": 17_000}), "cpu", 1
    )
    assert values(recipe.from_length(small, 17_000), "batch_size", "lr") == {"batch_size": 32, "lr": 0.008}


def test_a_device_that_runs_out_of_memory_ends_the_run_with_a_way_on(folders, tmp_path):
    config = settings(folders / "pairs", "batch_size=64").config
    with (
        pytest.raises(ElfError, match=r"out of memory with batches of 64; `elf resume .*=32 --set grad_accum_steps=2`"),
        memory.memory_errors(config, tmp_path),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.memory_errors(config, tmp_path):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_the_encoder_of_the_vocabulary_is_found(folders, tmp_path, capsys):
    own = shutil.copytree(folders / "pairs", tmp_path / "data")
    assert encoder_of_vocabulary(load_examples(own)) is None
    (own / "encoder").mkdir()
    (own / "encoder" / "config.json").write_text("{}")
    found = with_encoder(resolve(environ={}), load_examples(own), may_write=False).config.encoder
    assert found.encoder_model_name == str(own / "vectors")
    assert f"--set encoder_model_name={own / 'encoder'}" in capsys.readouterr().err, "0.2.0 trained on it"
    mini = SHARED / "t5-mini"
    if not mini.is_dir():
        return
    meta = json.loads((own / "elf_data.json").read_text())
    (own / "elf_data.json").write_text(json.dumps(meta | {"tokenizer_source": str(mini)}))
    assert encoder_of_vocabulary(load_examples(own)) == str(mini)


def test_a_run_makes_token_vectors_where_there_is_no_encoder(folders, tmp_path):
    """Not where the user has chosen an encoder, or something about the random table."""
    data = shutil.copytree(folders / "pairs", tmp_path / "data")
    examples, unset = load_examples(data), resolve(flags={"data_path": str(data)}, environ={})
    chosen = [with_encoder(unset, examples, make).config.encoder for make in (False, True)]
    assert [Path(encoder.encoder_model_name) for encoder in chosen] == [data / "vectors"] * 2
    tokenizer = load_tokenizer(data / "tokenizer")
    encoder = load_encoder(chosen[1], vocab_size(tokenizer))
    ids = np.arange(encoder.vocab_size)[None]
    latents = encoder.apply(encoder.params, ids, np.ones((1, ids.size, ids.size), bool))[0]
    np.testing.assert_allclose(latents, token_vectors(examples.tokens, encoder.vocab_size, 0), atol=1e-5)
    written = (data / "vectors" / "model.safetensors").stat()
    assert make_vectors(examples) == data / "vectors"
    assert (data / "vectors" / "model.safetensors").stat().st_mtime_ns == written.st_mtime_ns, "it is made once"
    for given in (["encoder_model_name=embedding"], ["embedding_dim=8"]):
        found = with_encoder(settings(data, *given), examples, True)
        assert found.config.encoder.encoder_model_name == "embedding"


def test_an_encoder_of_another_vocabulary_is_refused(folders):
    from elfcli.data.tokenizers import load_tokenizer

    ours, theirs = load_tokenizer(folders / "pairs" / "tokenizer"), str(folders / "texts" / "tokenizer")
    require_same_vocabulary(str(folders / "pairs" / "tokenizer"), ours, None)
    with pytest.raises(InputError, match="its vocabulary is not that of the data"):
        require_same_vocabulary(theirs, ours, None)


def test_a_run_with_nothing_set(elf, folders, tmp_path):
    """`elf train --data DIR` on a tiny network: the choices are told and recorded, texts shown, the end named."""
    run = tmp_path / "run"
    sets = [text for name in TINY for text in ("--set", name)]
    code, _, err = elf("train", "--data", folders / "pairs", "--steps", "10", "--output", run, *sets)
    assert code == 0 and "from the data: 80 pairs, max_length" in err and "truncated: 0.0% of sources" in err
    assert "step 10, sampled with the EMA weights" in err and "ein wort 6 und 6  ->" in err
    assert "step 10, held-out text: denoise error" in err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val_denoise_loss" in row] == [2, 4, 6, 8, 10]
    assert "ema_decay = 0.0  # from the run's length" in (run / "config.toml").read_text()
    assert len((run / "samples" / "training-step10.jsonl").read_text().splitlines()) == 1
    code, out, _ = elf("config", "show", "--data", folders / "pairs", "--model", "ELF-S")
    assert code == 0 and "# from the data" in out and 'vectors"  # from the data' in out
    code, _, err = elf("train", "--data", folders / "pairs", "--steps", "10", "--minutes", "3")
    assert code == 2 and "--minutes" in err and "--steps" in err


def test_overfitting_says_how_much_was_learnt_and_what_is_wrong(elf, folders, tmp_path, monkeypatch):
    """The doctor, which has tests of its own, is asked about the run where too little was learnt."""
    found = Check("steps", 3, "more", "fail", "train longer: elf resume RUN")
    monkeypatch.setattr("elfcli.diagnosis.measure.diagnose", lambda model, data, *rest: [found] * len(data.train))
    run = tmp_path / "run"
    sets = [text for name in TINY for text in ("--set", name)]
    code, _, err = elf("train", "--data", folders / "pairs", "--overfit", "8", "--steps", "3", "--output", run, *sets)
    assert code == 0 and "from the data: 8 pairs" in err
    assert "0 of 8 examples reproduced" in err and "steps: train longer" in err
    assert "sampled with" not in err, "held-out texts say nothing here"
    assert json.loads((run / "data.json").read_text())["examples"] == 8


def test_a_few_long_texts_are_told_with_lengths_that_train_faster(folders, monkeypatch, capsys):
    examples = load_examples(folders / "texts")
    for few, told in ((7, True), (60, False)):  # of 100, long ones
        lengths = {"input_ids": np.repeat([10, 100], [100 - few, few])}
        for module in (recipe, explain):
            monkeypatch.setattr(module, "lengths_of", lambda examples, lengths=lengths: lengths)
        explain.report_data(recipe.from_data(settings(folders / "texts"), examples), examples)
        said = capsys.readouterr().err
        assert ("-s max_length=16 training sees" in said) == told, said
    explain.report_data(settings(folders / "texts", "max_length=104"), examples)
    assert "padding" not in capsys.readouterr().err, "who chose the length needs no advice"


def test_batches_on_a_known_card_follow_from_its_plan():
    """`elf plan`: ELF-B, 64 examples of 1,024 tokens, takes 0.131 s and 23.4 GiB on an H100; ELF-L, 32: 0.390 s."""
    h100, rtx4090 = (read_cards()[0][name] for name in ("h100", "rtx4090"))
    for model, batch, seconds in (("ELF-B", 64, 0.131), ("ELF-M", 32, 0.213), ("ELF-L", 32, 0.390)):
        config = resolve(model=model, sets=["max_length=1024", f"batch_size={batch}"], environ={}).config
        estimate = batch * 1036 * position_seconds(config, h100)
        assert estimate == pytest.approx(seconds, rel=0.05)
    column = SimpleNamespace(lengths=lambda: np.array([10**9]))
    table = SimpleNamespace(input_ids=column, condition_input_ids=None)
    examples = type("Examples", (), {"tokens": table, "__len__": lambda self: 10**6})()
    given = resolve(environ={}, sets=["max_length=1024"])
    sizes = [recipe.from_machine(given, examples, "gpu", 1, card).config.global_batch for card in (h100, rtx4090, None)]
    assert sizes == [256, 80, 256], "the slower card takes 100,000 steps a day with smaller batches"
    text = derived_report(resolve(model="ELF-B", sets=["batch_size=64"], environ={}).config, h100, 1)
    assert "not measured" in text and "NVIDIA H100 80GB HBM3" in text
