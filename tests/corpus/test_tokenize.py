"""`elf tokenize`: every format, every error, and the folder, which does not depend on the number of workers."""

import csv
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from many_processes import killed
from typer.testing import CliRunner

from elfcli.cli.tokenize import tokenize as command
from elfcli.corpus.encode import pack_rows
from elfcli.corpus.readers import Reading, chosen_keys, open_corpus, requested_keys
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data.batches import column_from_rows
from elfcli.data.folder import load_examples, recorded_tokenizer
from elfcli.data.lengths import percentiles, truncated_counts
from elfcli.data.tokenizers import load_tokenizer, vocab_size
from elfcli.errors import InputError
from elfcli.outputs import LOCK, clear_killed, folder_written_whole

PAIRS = [(f"der hund nummer {n}", f"the dog number {n}, said the man") for n in range(40)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(path: Path, records: list) -> Path:
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def pairs_job(tmp_path_factory) -> Job:
    """Return a job with pairs, a validation split and a trained tokenizer; tests replace what they vary."""
    folder = tmp_path_factory.mktemp("pairs")
    train = jsonl(folder / "train.jsonl", [{"input": a, "output": b} for a, b in PAIRS])
    held_out = jsonl(folder / "validation.jsonl", [{"input": "der mann", "output": "the man"}])
    return Job(folder / "data", (str(train),), (str(held_out),), train_tokenizer=60)


@pytest.fixture(scope="module")
def pairs_data(pairs_job) -> Path:
    tokenize(pairs_job)
    return pairs_job.output


def pair_files(folder: Path) -> dict[str, Path]:
    with (folder / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("output", "input"), *((b, a) for a, b in PAIRS)])
    rows = [{"input": a, "output": b} for a, b in PAIRS]
    files = {"csv": folder / "a.csv", "jsonl": jsonl(folder / "a.jsonl", rows), "json": jsonl(folder / "a.json", rows)}
    files["tsv"] = write(folder / "a.tsv", "input\toutput\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    files["parquet"] = folder / "a.parquet"
    files["jsonl.gz"] = write(folder / "b.jsonl.gz", gzip.compress(files["jsonl"].read_bytes()))
    return files


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "jsonl.gz"])
def test_every_format_yields_the_same_pairs(tmp_path, ending):
    corpus = open_corpus([str(pair_files(tmp_path)[ending])], (), skip_bad=False)
    assert list(corpus) == PAIRS == list(corpus)
    assert corpus.reading.bytes_done == corpus.files[0].stat().st_size


def test_plain_text_and_globs(tmp_path):
    write(tmp_path / "b.txt", "zwei\r\n\n drei ")
    write(tmp_path / "a.txt", b"\xef\xbb\xbfeins\n")
    assert list(open_corpus([f"{tmp_path}/*.txt"], (), False)) == [("eins",), ("zwei",), ("drei",)]


BAD_LINES = [
    ("a.jsonl", '{"text": "x"}\n{"text": \n', ":2: .*JSON"),
    ("a.jsonl", '{"text": "x"}\n[1]\n', ":2: .*list"),
    ("a.jsonl", '{"text": "x"}\n\n{"txt": "y"}\n', ":3: .*'text'.*'txt'"),
    ("a.jsonl", '{"text": "x"}\n{"text": 7}\n', ":2: 'text'.* int"),
    ("a.jsonl", '{"text": "x"}\n{"text": null}\n', ":2: .*'text'"),
    ("a.jsonl", '{"text": "x"}\n{"text": "  "}\n', ":2: 'text' "),
    ("a.jsonl", '{"text": "x"}\n{"text": "\\ud800"}\n', ":2: 'text' .*surrogate"),
    ("a.txt", b"x\n\xff\xfe\n", ":2: .*UTF-8.* 1"),
    ("a.csv", 'text,id\nx,1\n"y\ny",2,3\n', ":3: 3 fields.* 2"),
    ("a.csv", 'text,id\nx,1\n"y"z,2\n', ":3: .*CSV"),
    ("a.tsv", "text\tid\nx\t1\ny\n", ":3: 1 fields"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_LINES)
def test_bad_lines_are_named_or_counted(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        list(open_corpus([str(path)], (), skip_bad=False))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    corpus = open_corpus([str(path)], (), skip_bad=True)
    assert list(corpus) == [("x",)]
    assert corpus.reading.bad == 1


UNFIT_FILES = [
    ("a.txt", b"", "No documents"),
    ("a.jsonl", b"\n\n", "No documents"),
    ("a.csv", b"text\n", "No documents"),
    ("a.txt", b"ab\0c", ":1: .*zero byte"),
    ("a.pdf", b"x", "'.pdf'"),
    ("a.txt.gz", b"x", "a.txt.gz:1: "),
    ("a.parquet", b"x", "Parquet"),
    ("a.json", b'[{"text": "x"}]', "JSON lines"),
    ("a.jsonl", b'{"txt": "x"}', "'text'.*--text-key"),
]


@pytest.mark.parametrize(("name", "content", "message"), UNFIT_FILES)
def test_unfit_files(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        list(open_corpus([str(path)], (), skip_bad=False))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files(tmp_path):
    write(tmp_path / "train.txt", "x")
    with pytest.raises(InputError, match=r"did you mean 'train.txt'"):
        open_corpus([str(tmp_path / "trian.txt")], (), False)
    with pytest.raises(InputError, match="folder"):
        open_corpus([str(tmp_path)], (), False)


def test_keys():
    assert chosen_keys((), ["id", "target", "source"], "f") == ("source", "target")
    assert chosen_keys(("body",), ["body", "text"], "f") == ("body",)
    with pytest.raises(InputError, match=r"'boody' .did you mean 'body'"):
        chosen_keys(("boody",), ["body", "text"], "f")
    with pytest.raises(InputError, match="--source-key and --target-key"):
        requested_keys(None, "a", None)
    with pytest.raises(InputError, match="--text-key"):
        requested_keys("t", "a", "b")


def test_the_folder_opens_with_datasets_and_with_elf(pairs_data):
    loaded = datasets.load_from_disk(str(pairs_data))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 40, "validation": 1}
    assert loaded["train"].features["input_ids"] == datasets.List(datasets.Value("int32"))
    examples = load_examples(pairs_data)
    tokenizer = load_tokenizer(recorded_tokenizer(examples))
    for row, (source, target) in enumerate(PAIRS):
        assert examples.texts(row) == {"input": source, "reference": target}
        assert tokenizer.decode(examples.tokens[row]["condition_input_ids"]) == source
        assert tokenizer.decode(examples.tokens[row]["input_ids"]) == target
        assert loaded["train"][row]["input_ids"] == examples.tokens[row]["input_ids"].tolist()
    metadata = examples.metadata
    assert (metadata["kind"], metadata["vocab_size"], metadata["pad_id"], metadata["eos_id"]) == (
        "conditional",
        60,
        0,
        1,
    )
    assert vocab_size(tokenizer) == 60
    assert metadata["splits"]["train"]["tokens"] == sum(
        column.lengths().sum() for column in (examples.tokens.input_ids, examples.tokens.condition_input_ids)
    )
    assert [source["name"] for source in metadata["splits"]["train"]["sources"]] == ["train.jsonl"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_workers_and_repetition_do_not_change_the_data(pairs_job, pairs_data, tmp_path):
    tokenize(replace(pairs_job, output=tmp_path / "d", workers=2))
    assert contents(tmp_path / "d") == contents(pairs_data)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_overwriting_needs_the_option_and_a_data_folder(pairs_job, pairs_data, tmp_path):
    with pytest.raises(InputError, match="--overwrite"):
        tokenize(pairs_job)
    before = contents(pairs_data)
    with pytest.raises(InputError, match=r"9000.* \d+ pieces"):
        tokenize(replace(pairs_job, overwrite=True, train_tokenizer=9000))
    assert contents(pairs_data) == before
    write(tmp_path / "mine.txt", "x")
    with pytest.raises(InputError, match="--output"):
        tokenize(replace(pairs_job, output=tmp_path, overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    tokenize(replace(pairs_job, overwrite=True))
    assert contents(pairs_data) == before


def named_options(job: Job) -> list:
    """Return the job as options of `elf tokenize`."""
    options = ["-i", job.inputs[0], "--validation", job.validation[0], "--train-tokenizer", job.train_tokenizer]
    return ["tokenize", *options, "--source-key", "input", "--target-key", "output"]


def test_what_a_killed_one_left_is_deleted_and_nothing_else(pairs_job, pairs_data, tmp_path):
    output = tmp_path / "d"
    killed(0, *named_options(pairs_job), "-o", output)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".d.") and (left / "new").is_dir()
    kept = {".d.mine1234": "no lock of ours", ".e.other123": "of another output", ".d.too-long1": "not our name"}
    for name in kept:
        (tmp_path / name / "data").mkdir(parents=True)
        if name != ".d.mine1234":
            write(tmp_path / name / LOCK, "")
    other = replace(pairs_job, overwrite=True, output=output)
    with folder_written_whole(output) as busy:
        write(busy / "file", "x")
        tokenize(other)
        assert {path.name for path in tmp_path.iterdir()} == {"d", busy.parent.name, *kept}
        assert (busy / "file").exists()
    assert [path.name for path in output.iterdir()] == ["file"]
    shutil.rmtree(output)
    tokenize(other)
    assert {path.name for path in tmp_path.iterdir()} == {"d", *kept} and contents(output) == contents(pairs_data)


def test_killed_between_taking_the_old_data_away_and_giving_the_new_its_name(pairs_job, pairs_data, tmp_path, capsys):
    output = tmp_path / "d"
    shutil.copytree(pairs_data, output)
    other = jsonl(tmp_path / "other.jsonl", [{"input": b, "output": a} for a, b in PAIRS])
    job = replace(pairs_job, inputs=(str(other),))
    killed(0, *named_options(job), "--overwrite", "-o", output)
    assert not output.exists()
    with pytest.raises(InputError, match="--overwrite"):
        tokenize(replace(job, output=output))
    assert "restored" in capsys.readouterr().err
    assert contents(output) == contents(pairs_data)
    assert {path.name for path in tmp_path.iterdir()} == {"d", "other.jsonl"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_stopped_between_the_two(pairs_job, pairs_data, tmp_path, monkeypatch, error):
    output, real = tmp_path / "d", Path.rename
    shutil.copytree(pairs_data, output)

    def rename(self, target):
        if self.name == "new" and target == output:
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(error):
        tokenize(replace(pairs_job, output=output, overwrite=True))
    assert contents(output) == contents(pairs_data) and [path.name for path in tmp_path.iterdir()] == ["d"]


def test_old_data_is_not_put_back_over_new_nor_half_deleted(pairs_data, tmp_path):
    output = tmp_path / "d"
    shutil.copytree(pairs_data, output)
    for name, inside in ((".d.abcdefgh", "replaced"), (".d.ijklmnop", "old")):
        (tmp_path / name / inside).mkdir(parents=True)
        write(tmp_path / name / LOCK, "")
        if inside == "old":
            shutil.rmtree(output)
        clear_killed(output)
        assert [path.name for path in tmp_path.iterdir()] == (["d"] if inside == "replaced" else [])


def test_a_bad_line_leaves_nothing_behind(tmp_path):
    bad = write(tmp_path / "a.jsonl", '{"text": "some words here"}\n' * 30 + "{\n")
    with pytest.raises(InputError, match=":31: "):
        tokenize(Job(tmp_path / "d", (str(bad),), train_tokenizer=13))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    summary = tokenize(Job(tmp_path / "d", (str(bad),), train_tokenizer=13, skip_bad=True))
    assert (summary.splits["train"].examples, summary.splits["train"].bad) == (30, 1)
    assert load_examples(tmp_path / "d").texts(0) == {"text": "some words here"}


def test_impossible_tokenizer_sizes(pairs_job, tmp_path):
    job = replace(pairs_job, output=tmp_path / "d")
    with pytest.raises(InputError, match=r"9000 is too large.* \d+ pieces"):
        tokenize(replace(job, train_tokenizer=9000))
    with pytest.raises(InputError, match=r"6 is too small.* \d+ pieces"):
        tokenize(replace(job, train_tokenizer=6))


rows_of_ids = st.lists(
    st.lists(st.lists(st.integers(2, 9), max_size=6), min_size=1, max_size=4), min_size=1, max_size=4
)


@given(rows_of_ids, st.integers(1, 7))
def test_packing_loses_and_adds_nothing(chunks, length):
    packed, rest = [], None
    for chunk in chunks:
        column = column_from_rows(chunk)
        rows, rest = pack_rows(rest, (column.values[0], column.lengths()), length, 1)
        packed += rows.tolist()
    expected = []
    for place, document in enumerate(row for chunk in chunks for row in chunk):
        expected += ([1] if place else []) + document
    assert [token for row in packed for token in row] + rest.tolist() == expected
    assert all(len(row) == length for row in packed) and len(rest) < length


def test_packed_data(pairs_data, tmp_path):
    text = jsonl(tmp_path / "a.jsonl", [{"text": target} for _, target in PAIRS])
    job = Job(tmp_path / "d", (str(text),), tokenizer=str(pairs_data / "tokenizer"), pack=32)
    split = tokenize(job).splits["train"]
    examples = load_examples(tmp_path / "d")
    assert set(examples.tokens.input_ids.lengths()) == {32} and examples.texts is None
    unpacked = load_examples(pairs_data).tokens.input_ids.lengths().sum()
    assert len(examples) * 32 + split.dropped_tokens == unpacked + len(PAIRS) - 1
    with pytest.raises(InputError, match="--pack 1000000"):
        tokenize(replace(job, output=tmp_path / "e", pack=10**6))
    with pytest.raises(InputError, match="--pack"):
        tokenize(replace(job, output=tmp_path / "e", text_key=None, inputs=(str(pair_files(tmp_path)["csv"]),)))


@pytest.mark.parametrize("task", ["toy-de-en", "toy-text", "toy-summary"])
def test_built_in_tasks_have_a_piece_per_word(tmp_path, task):
    summary = tokenize(Job(tmp_path / "d", task=task, seed=3))
    assert {name: split.examples for name, split in summary.splits.items()} == {"train": 20000, "validation": 500}
    for split in ("train", "validation"):
        examples = load_examples(tmp_path / "d", split)
        for row in range(0, 500, 7):
            words = {name: len(text.split()) for name, text in examples.texts(row).items()}
            tokens = examples.tokens[row]
            assert len(tokens["input_ids"]) == words["text" if task == "toy-text" else "reference"]
            assert 2 not in tokens["input_ids"], "an unknown word"
            assert len(tokens.get("condition_input_ids", ())) == words.get("input", 0)
    tokenizer = load_tokenizer(tmp_path / "d" / "tokenizer")
    assert tokenizer.decode(tokens["input_ids"]) == list(examples.texts(row).values())[-1]


def test_contradictory_jobs(tmp_path):
    for job, message in [
        (Job(tmp_path / "d"), "Nothing to tokenize"),
        (Job(tmp_path / "d", ("a.txt",), task="toy-text"), "--input"),
        (Job(tmp_path / "d", task="toy-txt"), "did you mean 'toy-text'"),
        (Job(tmp_path / "d", ("a.txt",), tokenizer="x", train_tokenizer=9), "--tokenizer and --train-tokenizer"),
    ]:
        with pytest.raises(InputError, match=message):
            tokenize(job)
    assert not list(tmp_path.iterdir())


def test_table_figures():
    assert percentiles(np.arange(1, 101)) == {"p50": 51, "p90": 91, "p99": 100, "max": 100}
    lengths = {"condition_input_ids": np.array([2, 5, 1]), "input_ids": np.array([6, 5, 7])}
    assert truncated_counts(lengths, 8, 4) == {"condition_input_ids": 1, "input_ids": 1}
    assert truncated_counts({"input_ids": np.array([8, 9])}, 8, 0) == {"input_ids": 1}


def test_the_command_prints_the_table(pairs_job, tmp_path):
    app = typer.Typer()
    app.command()(command)
    source, held_out = pairs_job.inputs[0], pairs_job.validation[0]
    line = ["-i", source, "--validation", held_out, "-o", str(tmp_path / "d"), "--train-tokenizer", "60"]
    result = CliRunner().invoke(app, [*line, "--max-length", "20"])
    assert result.exit_code == 0, result.output
    assert "vocabulary of 60" in result.stdout and "tokens/s" in result.stdout
    assert [row.split()[:3] for row in result.stdout.splitlines()[2:6]] == [
        ["train", "source", "40"],
        ["train", "target", "40"],
        ["validation", "source", "1"],
        ["validation", "target", "1"],
    ]
    assert "tokenizing train" in result.stderr


def test_each_iteration_starts_over(tmp_path):
    path = write(tmp_path / "a.txt", b"x\n\xff\n")
    corpus = open_corpus([str(path)], (), skip_bad=True)
    assert [len(list(corpus)) for _ in range(2)] == [1, 1]
    assert corpus.reading == Reading(skip_bad=True, bad=1, documents=1, bytes_done=4)


def test_held_out_documents_that_are_in_train_are_counted(tmp_path, elf):
    (tmp_path / "train.txt").write_text("a red house\na blue house\na red house\n")
    (tmp_path / "held.txt").write_text("a green house\na red house\na red house\n")
    argv = [
        "--input",
        tmp_path / "train.txt",
        "--train-tokenizer",
        "14",
        "--output",
        tmp_path / "data",
        "--allow-unknown",
    ]
    code, out, err = elf("tokenize", *argv, "--validation", tmp_path / "held.txt")
    assert code == 0, err
    assert "validation: 2 of 3" in out
    metadata = json.loads((tmp_path / "data" / "elf_data.json").read_text())
    assert [metadata["splits"][name]["also_in_train"] for name in ("train", "validation")] == [0, 2]
    code, out, _ = elf("tokenize", *argv, "--validation", tmp_path / "train.txt", "--overwrite")
    assert "validation: 3 of 3" in out
