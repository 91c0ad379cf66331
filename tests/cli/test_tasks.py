"""`elf tasks`, the published figures, and data made from the public sources (a local stand-in for the Hub)."""

import json
import subprocess
import sys
import time

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Handler, point_at

from elfcli.config.presets import presets_dir
from elfcli.config.resolve import model_names, resolve
from elfcli.corpus import public
from elfcli.data.folder import load_examples
from elfcli.errors import InputError
from elfcli.models.build import elf_shape
from elfcli.models.elf import abstract_params
from elfcli.weights.names import PUBLISHED
from elfcli.weights.published import PARAMETERS, PUBLISHED_SCORES, published_scores, summary


@pytest.mark.parametrize("model", model_names())
def test_counted_parameters_are_those_of_the_network(model):
    config = resolve(model=model, environ={}).config
    leaves = jax.tree.leaves(abstract_params(elf_shape(config, 512, 32100)))
    assert PARAMETERS[model] == sum(leaf.size for leaf in leaves)


def test_every_published_checkpoint_has_figures_and_their_split():
    assert {figure.checkpoint for figure in PUBLISHED_SCORES} == set(PUBLISHED)
    assert summary(published_scores("de-en", "ELF-B")) == [
        "bleu 26.4  (test; ODE 64 steps, CFG 2, w 1)",
        "bleu about 26.7  (validation; ODE 64 steps, CFG 2, w 1)",
    ]
    assert published_scores("de-en", "ELF-M") == [] and published_scores(None, None) == []


def test_tasks_lists_everything(elf):
    code, out, err = elf("tasks")
    assert code == 0 and err == ""
    for said in ("toy-de-en", "104.6M", "342.5M", "652.1M", "ELF-B-xsum", "ppl 24.1  entropy 5.15", "rouge1 36.0"):
        assert said in out
    code, out, _ = elf("tasks", "--format", "json")
    found = json.loads(out)
    assert {row["name"] for row in found["checkpoints"]} == set(PUBLISHED)
    assert next(row for row in found["models"] if row["name"] == "ELF-B")["parameters"] == 104_579_940
    assert next(row for row in found["tasks"] if row["name"] == "xsum")["source_data"] == "EdinburghNLP/xsum"


def test_listing_imports_no_jax():
    code = (
        "import sys\nfrom elfcli.__main__ import main\n"
        "try: main(['tasks'])\nexcept SystemExit: pass\n"
        "print([name for name in ('jax', 'transformers', 'datasets') if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


def test_split_files_are_told_from_others():
    names = ["de-en/train-00001-of-00002.parquet", "de-en/train-00000-of-00002.parquet", "fr-en/train-0.parquet",
             "de-en/test-0.parquet", "de-en/train/0000.parquet", "de-en/partial-train/0000.parquet", "de-en/train.py",
             "de-en/training-0.parquet"]  # fmt: skip
    found = ["de-en/train-00000-of-00002.parquet", "de-en/train-00001-of-00002.parquet", "de-en/train/0000.parquet"]
    assert public.split_files(names, "de-en/", "train") == found
    assert public.split_files(["data/train-0-of-1.parquet"], "", "train") == ["data/train-0-of-1.parquet"]


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def sources(hub, monkeypatch, tmp_path):
    """The stand-in serving data sets, too: as repositories of the same names, the Hub's conversion as a branch."""
    route = Handler.route

    def as_models(self, path, body):
        path = path.replace("/api/datasets/", "/api/models/").removeprefix("/datasets")
        return route(self, path, body)

    monkeypatch.setattr(Handler, "route", as_models)
    monkeypatch.chdir(tmp_path)
    return hub


def add(hub, name, files, branch="main"):
    hub.add(name, {"README.md": b"x", "script.py": b"x"}).commit(branch, files)


def test_xsum_is_made_from_the_hubs_conversion(sources, elf, shared, tmp_path):
    train = parquet(document=["a long text", "", "more text"], summary=["short", "lost", "brief"], id=["1", "2", "3"])
    held = parquet(document=["one text"], summary=["one"], id=["4"])
    files = {"default/train/0000.parquet": train, "default/validation/0000.parquet": held}
    add(sources, "EdinburghNLP/xsum", files, "refs/convert/parquet")
    tokenizer = ["--tokenizer", shared / "t5-small"]
    code, out, err = elf("tokenize", "--task", "xsum", "--workers", "1", *tokenizer)
    assert code == 0, err
    assert "data/xsum-t5-small" in err and "fetching 2 files of EdinburghNLP/xsum" in err
    assert "1 malformed lines" in out
    data = load_examples("./data/xsum-t5-small", "train")
    assert len(data) == 2 and data.texts(1) == {"input": "more text", "reference": "brief"}
    assert len(load_examples("./data/xsum-t5-small", "validation")) == 1
    metadata = json.loads((tmp_path / "data/xsum-t5-small/elf_data.json").read_text())
    assert metadata["settings"]["task"] == "xsum" and metadata["vocab_size"] == 32100


def test_pairs_within_one_column_are_opened_up(sources, elf, tmp_path):
    pairs = [{"de": "ein Hund", "en": "a dog"}, {"de": "eine Katze", "en": "a cat"}] * 20
    add(sources, "wmt/wmt14", {
        "de-en/train-00000-of-00002.parquet": parquet(translation=pairs),
        "de-en/train-00001-of-00002.parquet": parquet(translation=[{"de": "das Ende", "en": "the end"}]),
        "de-en/validation-00000-of-00001.parquet": parquet(translation=pairs[:1]),
        "fr-en/train-00000-of-00001.parquet": b"not this one",
    })  # fmt: skip
    code, _, err = elf("tokenize", "--task", "de-en", "--workers", "1", "--train-tokenizer", "24")
    assert code == 0, err
    data = load_examples("./data/de-en-24", "train")
    assert len(data) == 41 and data.texts(40) == {"input": "das Ende", "reference": "the end"}
    assert sources.count("fr-en") == 0


def test_a_split_of_any_data_set_by_name(sources, elf):
    pairs = [{"de": "ein Hund", "en": "a dog"}, {"de": "eine Katze", "en": "a cat"}] * 20
    add(sources, "owner/pairs", {
        "de-en/train/0000.parquet": parquet(translation=pairs),
        "fr-en/train/0000.parquet": parquet(translation=[{"fr": "un", "en": "one"}]),
    }, "refs/convert/parquet")  # fmt: skip
    keys = ["--source-key", "translation.de", "--target-key", "translation.en", "--train-tokenizer", "20"]
    code, _, err = elf("tokenize", "-i", "owner/pairs/de-en:train", *keys)
    assert code == 0 and "data/owner-pairs-de-en-train-20" in err, err
    assert load_examples("./data/owner-pairs-de-en-train-20").texts(1) == {"input": "eine Katze", "reference": "a cat"}
    add(sources, "owner/files", {"train.jsonl": b'{"text": "some words here"}\n' * 30})
    code, _, err = elf("tokenize", "-i", "hf://datasets/owner/files/train.jsonl", "--train-tokenizer", "13")
    assert code == 0 and len(load_examples("./data/train-13")) == 30, err
    error = elf("tokenize", "-i", "owner/pairs:train", *keys, "-o", "x")[2].splitlines()[-1]
    assert "several configurations (de-en, fr-en): name one, as owner/pairs/de-en:train" in error
    error = elf("tokenize", "-i", "owner/pairs/de-en:test", *keys, "-o", "x")[2].splitlines()[-1]
    assert "no Parquet files of test" in error and "hf://datasets/" in error


def test_text_has_no_validation_split(sources, elf):
    files = {"data/train-00000-of-00001.parquet": parquet(text=["some words here", "and some there"] * 20)}
    add(sources, "Skylion007/openwebtext", files)
    code, _, err = elf("tokenize", "--task", "owt", "--workers", "1", "--train-tokenizer", "16", "-o", "out")
    assert code == 0, err
    assert len(load_examples("./out", "train")) == 40


def test_what_the_hub_lacks_is_one_line_with_a_way_out(sources, elf, monkeypatch, tmp_path):
    code, _, err = elf("tokenize", "--task", "xsum")
    error = err.splitlines()[-1]
    assert code == 2 and "from the Hub" in error and "--source-key document" in error
    add(sources, "EdinburghNLP/xsum", {"data/xsum.tar.gz": b"x"})
    error = elf("tokenize", "--task", "xsum")[2].splitlines()[-1]
    assert "Parquet files of train and validation" in error
    point_at(monkeypatch, "http://127.0.0.1:9")
    start = time.monotonic()
    code, _, err = elf("tokenize", "--task", "owt")
    assert code == 2 and "cannot be reached" in err and "--text-key text" in err
    assert time.monotonic() - start < 10 and not list(tmp_path.glob("data/*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "xsumm"], "did you mean 'xsum'"),
        (["--task", "xsum", "--input", "a.txt"], "provides the text"),
        (["--task", "xsum", "--text-key", "document"], "knows its columns"),
    ],
)
def test_contradictions_are_told_before_anything_is_fetched(elf, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = elf("tokenize", *arguments)
    assert code == 2 and said in err.splitlines()[-1] and not list(tmp_path.iterdir())


def test_folders_are_named_after_what_they_hold():
    name = public.default_folder
    assert [str(name("xsum")), str(name("toy-de-en"))] == ["data/xsum-t5", "data/toy-de-en"]
    assert str(name(None, ["some/my corpus*.jsonl.gz"])) == "data/my-corpus-t5"
    assert str(name("owt", (), 4000)) == "data/owt-4000"
    assert str(name(None, ["a.txt"], "google/mt5-base")) == "data/a-mt5-base"


def test_a_task_without_public_data_is_no_surprise():
    assert set(public.SOURCES) <= {task for task, _ in PUBLISHED.values()}
    with pytest.raises(InputError, match="Parquet"):
        public.find_files(public.SOURCES["owt"], lambda *_, **__: ["a.txt"], lambda action: action())


@pytest.mark.parametrize("preset", sorted((presets_dir() / "tasks").glob("*.toml")), ids=lambda path: path.stem)
def test_the_head_of_a_task_says_command_machine_and_score(preset):
    head = "".join(line for line in preset.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    assert f"elf train --task {preset.stem} " in head and ("TPU" in head or "CPU" in head)
    assert any(
        origin in head for origin in ("(measured)", "(the paper's; not measured here)", "Score: not measured here")
    )
