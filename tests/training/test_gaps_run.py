"""A run with gaps: its batches, what it resumes with, and what its model fills and refuses."""

import json
import random
import re
from collections import defaultdict
from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_run import SETTINGS, tiny_run

import elfcli
from elfcli.config.resolve import resolve
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.corpus.vocabulary import train_tokenizer
from elfcli.data.gaps import ROOM
from elfcli.data.templates import continuation, parsed
from elfcli.data.tokenizers import load_tokenizer
from elfcli.errors import InputError
from elfcli.recipe.apply import complete
from elfcli.runs.examples import open_examples
from elfcli.sampling.candidates import likeliest
from elfcli.sampling.gaps import evaluation_sources, sources_of_templates
from elfcli.sampling.generate import Options, decoded_rows, sampling_batches
from elfcli.sampling.settings import SamplingSetting, one_setting
from elfcli.sampling.trace import pieces_of, traced
from elfcli.scoring.ngram import load_ngram_judge
from elfcli.training.inputs import batch_rows, load_batch, open_inputs
from elfcli.training.start import start_run
from elfcli.weights.open import open_source

WORDS = [*(text for text in SETTINGS if not text.startswith(("max_", "text_", "steps"))), "steps=2", "pad_token=eos"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaps")
    (folder / "a.txt").write_text("".join(f"one word {i % 7} and {i % 5}, it is {i % 3} [..]\n" for i in range(32)))
    text = (str(folder / "a.txt"),)
    tokenize(Job(folder / "data", inputs=text, validation=text, train_tokenizer=26))
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    flags = {"data_path": str(folder / "data"), "encoder_model_name": "embedding", "gaps": (0.25,) * 4}
    return resolve(sets=[*WORDS, "model=ELF-XS", "num_live_samples=0"], flags=flags, environ={})


@pytest.fixture(scope="module")
def run(folder, settings):
    return start_run(settings, folder / "run")


def test_lengths_follow_from_the_longest_text(settings):
    found = complete(settings).resolved.config.data
    longest = max(len(row["input_ids"]) for row in map(open_examples(settings.config).tokens.__getitem__, range(32)))
    assert found.max_length == -(-longest // 8) * 8 + ROOM and not found.max_input_length


@pytest.mark.parametrize("buckets", [(), (16,)])
def test_batches_are_the_same_after_a_resume_and_others_in_each_epoch(settings, folder, buckets):
    config = complete(settings).resolved.config
    data = config.data.model_copy(update={"buckets": buckets, "gaps_after": 0.0})
    training = config.training.model_copy(update={"steps": 99})
    config = config.model_copy(update={"data": data, "training": training})
    examples = open_examples(config)
    inputs, again = (open_inputs(config, examples, load_tokenizer(folder / "data/tokenizer")) for _ in range(2))
    everything = slice(None)
    first, later = load_batch(config, inputs, 1, everything), load_batch(config, again, 1, everything)
    assert all(np.array_equal(first[name], later[name]) for name in first)
    epochs = [batch_rows(config, inputs, number)[2] for number in range(9)]
    assert epochs == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    drawn = {}
    for number in range(8):
        length, rows, epoch = batch_rows(config, inputs, number)
        batch = load_batch(config, inputs, number, everything)
        assert batch["input_ids"].shape == (8, length)
        frames = zip(batch["input_ids"].tolist(), batch["cond_mask"].tolist(), strict=True)
        for row, frame in zip(rows.tolist(), frames, strict=True):
            drawn.setdefault(row, []).append((epoch, str(frame)))
    twice = [one for one in drawn.values() if len(one) == 2]
    assert len(twice) == 32 and sum(a[1] != b[1] for a, b in twice) > 16
    half = load_batch(config, inputs, 1, slice(4, 8))
    assert np.array_equal(half["input_ids"], first["input_ids"][4:]), "a process draws what one process would"


def test_texts_are_free_before_gaps_are_drawn(settings, folder):
    config = complete(settings).resolved.config
    assert config.data.gaps_after == 0.5, "the recipe's"
    training = config.training.model_copy(update={"steps": 8})
    optimization = config.optimization.model_copy(update={"grad_accum_steps": 2})
    config = config.model_copy(update={"training": training, "optimization": optimization})
    inputs = open_inputs(config, open_examples(config), load_tokenizer(folder / "data/tokenizer"))
    known = [load_batch(config, inputs, number, slice(None))["cond_mask"].any() for number in range(16)]
    assert known == [False] * 8 + [True] * 8


def test_a_model_fills_continues_and_writes_freely(run, elf, tmp_path):
    model = elfcli.load(run)
    templates = [r"one [..] and [..2] \[..]", "[..] it [..]"]
    filled = model.fill(templates, seed=1, candidates=2)
    assert filled[0].startswith("one ") and " and " in filled[0] and filled[0].endswith(" [..]") and " it " in filled[1]
    continued = model.continue_text(["one word [..]", "and 3"], seed=1)
    assert continued[0].startswith("one word [..]") and continued[1].startswith("and 3")
    assert len(model.generate(num_samples=2)) == 2
    free = one_setting(model.config, {})
    assert (free.num_sampling_steps, free.sde_gamma) == (32, 1.5), "more noise would cost free texts their variety"
    lines = [{"t": templates[0], "reference": "one a and b [..]"}, {"t": templates[1], "reference": "so it is"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = tmp_path / "out.jsonl"
    code, _, err = elf("sample", run, "--input", tmp_path / "in.jsonl", "--template-key", "t", "--seed", 1,
                       "--candidates", 2, "-o", file)  # fmt: skip
    assert code == 0, err
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["generated"] for row in rows] == filled and [row["template"] for row in rows] == templates
    assert [parsed(row["template"], "").filled(row["gaps"]) for row in rows] == filled
    made = json.loads(file.with_name("out.jsonl.meta.json").read_text())["made_by"]
    assert (made["steps"], made["gamma"], made["candidates"]) == (8, 3, 2)
    code, out, err = elf("eval-gaps", file, "--data", run.parent / "data")
    assert code == 0 and "bigram" in out and "real text" in out, err


def test_gaps_are_read_from_their_places_and_the_trace_shows_them_there(run):
    model = elfcli.load(run).loaded
    templates = [parsed("one [..] and [..1]", ""), continuation("one")]
    sources = sources_of_templates(model, templates)
    (part,) = sampling_batches(model, sources, SamplingSetting(), Options())
    text = model.tokenizer("word 1", add_special_tokens=False)["input_ids"]
    rows = np.full((2, model.config.data.max_length), 1)
    for row, frame in zip(rows, sources.frames, strict=True):
        for start, _ in frame.gaps:
            row[start : start + len(text)] = text
    found, continued = decoded_rows(model, rows, part)
    assert found["gaps"][0] == "word 1" and found["generated"].startswith("one word 1 and ")
    assert len(model.tokenizer(found["gaps"][1], add_special_tokens=False)["input_ids"]) <= 1
    assert continued["generated"] == "one word 1"
    shown = [pieces_of(model, part, b, rows[b], np.full(rows.shape[1], 0.5)) for b in range(2)]
    assert "".join(piece for piece, _ in shown[0]).replace(" ", "").startswith("oneword1and")
    assert [sure for _, sure in shown[1]] == [100] * sources.frames[1].gaps[0][0] + [50] * len(text)
    for trace in traced(model, sources, SamplingSetting(num_sampling_steps=2)):
        assert trace.row["generated"].startswith("one") and len(trace.settled()) == len(trace.rows[-1])


def test_held_out_gaps_are_of_all_kinds_and_the_same_each_time(run):
    model = elfcli.load(run).loaded
    sources, again = (evaluation_sources(model, None, 6) for _ in range(2))
    assert [row["kind"] for row in sources.rows] == ["prefix", "span", "several"] * 2
    assert sources[:3] == again[:3]
    for row, template in zip(sources.rows, sources.templates, strict=True):
        assert template.filled(row["reference_gaps"]) == row["reference"] and str(template) == row["template"]
    free = replace(model, config=model.config.model_copy(
        update={"evaluation": model.config.evaluation.model_copy(update={"metrics": ("ppl",)})}))  # fmt: skip
    assert evaluation_sources(free, None, 2).conditions == [(), ()]


def test_evaluation_scores_gaps(run, elf, tmp_path):
    code, out, err = elf(
        "eval", run, "-n", 6, "--batch-size", 2, "-o", tmp_path / "eval", "--json", tmp_path / "s.json"
    )
    assert code == 0, err
    (score,) = json.loads((tmp_path / "s.json").read_text())[0]["scores"]
    assert score["metric"] == "gaps" and score["made_by"]["checkpoint"] == str(run) and "metric:bleu" not in err
    assert score["made_by"]["gamma"] == 3 and score["made_by"]["candidates"] == 32
    fills = {(one["kind"], one["fill"]): one for one in score["details"]["by_kind"]}
    assert {kind for kind, _ in fills} == {"all", "prefix", "span", "several"}
    assert fills["all", "real text"]["exact"] == 100 and fills["all", "filled"]["exact"] == score["exact"]
    assert "by kind of gap" in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--template", "no gap"], "no gap in 'no gap'; mark one with [..]"),
        (["--template", "[..0]"], "at most 0 tokens"),
        (["--template", "one [4..2]"], "[4..2]: write the fewest and the most tokens"),
        (["--prompt", " "], "--prompt: is empty"),
        (["--template", "[..9] and " * 7], "give its gaps less room"),
        (["--prompt", "one word " * 20], "shorten it"),
        (["--prompt", "é"], "does not know"),
        (["--prompt", "one", "--data", "x"], "pass one of them"),
        (["--template-key", "t"], "pass --input as well"),
        (["--input", __file__], "pass --template-key"),
        (["--candidates", "2"], "needs sources or templates"),
    ],
)
def test_what_cannot_be_filled_is_one_line(run, elf, tmp_path, arguments, why):
    code, _, err = elf("sample", run, *arguments, "-o", tmp_path / "out.jsonl")
    assert code == 2 and why in err.splitlines()[-1] and err.count("error:") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_model_of_pairs_cannot_fill(elf, tmp_path):
    code, _, err = elf("sample", tiny_run(), "--template", "a [..]", "-o", tmp_path / "out.jsonl")
    assert code == 2 and "generates from sources, so it cannot continue or fill" in err


@pytest.fixture(scope="module")
def free_run(folder, settings):
    sets = [
        *WORDS,
        "model=ELF-XS",
        "num_live_samples=0",
        f"data_path={folder / 'data'}",
        "encoder_model_name=embedding",
    ]
    return start_run(resolve(sets=sets, environ={}), folder / "free")


def test_known_text_guides_a_model_that_was_not_trained_with_gaps(free_run, elf, tmp_path):
    how = ("sample", free_run, "--steps", 2, "-o", tmp_path / "out.jsonl")
    code, _, err = elf(*how, "--template", "one [..2] and", "--prompt", "one word", "--trace", tmp_path / "t.html")
    assert code == 0 and "the known text guides the sampling" in err, err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert re.fullmatch("one .*and", rows[0]["generated"]) and rows[1]["generated"].startswith("one word")
    assert all(parsed(row["template"], "").filled(row["gaps"]) == row["generated"] for row in rows)
    made = json.loads((tmp_path / "out.jsonl.meta.json").read_text())["made_by"]
    assert made["candidates"] == 8 and made["chosen_by"] == "n-gram judge"
    assert made["gamma"] == 0.75, "what guides needs less noise"
    judge = load_ngram_judge(str(free_run.parent / "data"))
    drawn = [elfcli.load(free_run).fill(["one [..2] and"], steps=2, candidates=1, seed=seed) for seed in range(3)]
    assert likeliest(judge, ["one and and and", *(text for (text,) in drawn), "one word 3 and"]) == 4
    assert likeliest(judge, ["", "it it it it it it", "3 word and one"]) == 2, "the first two are not sound"
    code, _, err = elf(*how, "--overwrite", "--prompt", "one", "-s", "data_path=moved")
    assert code == 0 and "of the candidates, the consensus is kept" in err, err
    assert json.loads((tmp_path / "out.jsonl.meta.json").read_text())["made_by"]["chosen_by"] == "consensus"
    code, _, err = elf(*how, "--overwrite", "--sampler", "refine", "--prompt", "one")
    assert code == 2 and "all its passes are at t = 0" in err
    code, _, err = elf(*how, "--overwrite", "--candidates", 2, "-n", 1)
    assert code == 2 and "--candidates 2: needs sources or templates, not free text" in err
    results = tmp_path / "sweep"
    code, _, err = elf("sweep", free_run, "--candidates", "1,2", "--steps", 2, "-n", 1, "-o", results)
    assert code == 2 and "--candidates 2: needs sources" in err and not results.exists(), "refused before any sampling"


def test_a_free_model_is_trained_on_with_gaps(free_run, folder):
    """From its weights, with its network and encoder, and with gaps from the first step."""
    sets = ["num_live_samples=0", "num_workers=0", "batch_size=8", "steps=1", "lr=1e-9", "pad_token=eos"]
    flags = {"data_path": str(folder / "data"), "init_from": str(free_run), "gaps": (0.25,) * 4}
    fine = open_source(start_run(resolve(sets=sets, flags=flags, environ={}), folder / "fine"))
    free = open_source(free_run)
    assert fine.config.network == free.config.network and fine.config.data.gaps_after == 0
    assert fine.config.data.max_length == free.config.data.max_length + ROOM
    for ours, theirs in zip(jax.tree.leaves(fine.params), jax.tree.leaves(free.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    (filled,) = elfcli.load(folder / "fine").fill(["one [..] and"], steps=2, candidates=1)
    assert filled.startswith("one ") and filled.endswith(" and")


def test_gaps_without_a_limit_get_a_length_by_the_seed(free_run):
    model = elfcli.load(free_run).loaded
    lengths = [
        sources_of_templates(model, [parsed("one [..] and [4..5]", "")], seed=seed).frames[0].gaps for seed in range(9)
    ]
    sizes = {stop - start for (start, stop), _ in lengths}
    assert sizes <= set(range(1, ROOM + 1)) and len(sizes) > 2
    assert {stop - start for _, (start, stop) in lengths} == {4, 5}


def test_gaps_of_a_free_model_are_evaluated_at_their_length(free_run, elf, tmp_path):
    model = elfcli.load(free_run, sets=['metrics=["gaps"]']).loaded
    sources = evaluation_sources(model, None, 6)
    for row, frame in zip(sources.rows, sources.frames, strict=True):
        assert row["kind"] == "prefix" or "[..0]" not in row["template"]
        gaps = sum(stop - start for start, stop in frame.gaps)
        assert frame.open_end or len(frame.ids) == gaps + sum(frame.example()["known"][:-1]), "no room"
        assert frame.open_end == (row["kind"] == "prefix")
    code, out, err = elf("eval", free_run, "-n", 3, "-s", 'metrics=["gaps"]', "-o", tmp_path / "eval")
    assert code == 0 and "by kind of gap" in out, err


def test_what_cannot_be_trained_with_gaps():
    flags = {"data_path": str(tiny_run().parent / "data"), "gaps": (0.25,) * 4}
    with pytest.raises(InputError, match="has pairs, but gaps are drawn from free texts"):
        complete(resolve(sets=["encoder_model_name=embedding", "model=ELF-XS"], flags=flags, environ={}))
    for wrong in ("[0.5, 0.5]", "[1, 1, 0, 0]"):
        with pytest.raises(InputError, match="expected 4 shares"):
            resolve(sets=[f"gaps={wrong}", "pad_token=eos"], environ={})


NOUNS, VERBS, ENDS = "dog cat man bird tree boat", "sees likes finds hears", "today often here twice"


@pytest.mark.slow
def test_a_model_of_a_small_grammar_fills_and_continues_by_it(elf, tmp_path):
    """Measured: all continuations and 98% of the texts with one gap and with several are of the grammar."""
    draw = random.Random(0)

    def phrase():
        return [draw.choice(["the", "a", "one"]), *draw.choices(["red", "old", "small", "wise"], k=draw.randrange(2)),
                draw.choice(NOUNS.split())]  # fmt: skip

    def sentence():
        return " ".join([*phrase(), draw.choice(VERBS.split()), *phrase(), draw.choice(ENDS.split())])

    texts = [sentence() for _ in range(3200)]
    for name, part in (("train", texts[:3000]), ("validation", texts[3000:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
    (tmp_path / "words").mkdir()
    train_tokenizer(texts, tmp_path / "words", None)
    files = (str(tmp_path / "train.txt"),), (str(tmp_path / "validation.txt"),)
    tokenize(Job(tmp_path / "data", inputs=files[0], validation=files[1], tokenizer=str(tmp_path / "words")))
    sets = {"hidden_size": 64, "depth": 3, "num_heads": 4, "bottleneck_dim": 32, "num_live_samples": 0, "lr": 0.006}
    run = elfcli.train(data=tmp_path / "data", output=tmp_path / "run", gaps=True, steps=2500, batch_size=64, sets=sets)
    code, _, err = elf("eval", run, "-n", 180, "-o", tmp_path / "eval")
    assert code == 0, err
    one = "(?:the|a|one) (?:(?:red|old|small|wise) )?(?:{})".format(NOUNS.replace(" ", "|"))
    grammar = re.compile("{0} (?:{1}) {0} (?:{2})".format(one, VERBS.replace(" ", "|"), ENDS.replace(" ", "|")))
    right = defaultdict(list)
    (file,) = (tmp_path / "eval").glob("sde*.jsonl")
    for row in map(json.loads, file.read_text().splitlines()):
        right[row["kind"]].append(grammar.fullmatch(" ".join(row["generated"].split())) is not None)
    shares = {kind: sum(some) / len(some) for kind, some in right.items()}
    print(shares)
    assert shares["prefix"] > 0.9 and shares["span"] > 0.9 and shares["several"] > 0.9, shares
