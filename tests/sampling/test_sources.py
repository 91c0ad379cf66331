"""Files of sources in every format: the columns of sources and references, and errors."""

import csv
import gzip
import json
import os
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import parquet

from elfcli.config.schema import Config, DataSettings
from elfcli.errors import InputError
from elfcli.sampling import sources as examples
from elfcli.sampling.sources import rows_of_file

PAIRS = [{"de": f"Satz, {i}", "en": f"line {i}"} for i in range(4)]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model whose data was made from the columns `de` and `en`."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "elf_data.json").write_text(json.dumps({"settings": {"keys": ["de", "en"]}}))
    monkeypatch.setattr(examples, "encode_conditions", lambda model, texts, *_: [[len(text)] for text in texts])
    return SimpleNamespace(config=Config(data=DataSettings(data_path=str(folder))))


def files_of(folder, rows):
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        with open(folder / f"f{ending}", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        yield folder / f"f{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "f.jsonl").write_text(lines)
    (folder / "f.json.gz").write_bytes(gzip.compress(lines.encode()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "f.parquet")
    yield from (folder / "f.jsonl", folder / "f.json.gz", folder / "f.parquet")


def test_every_format_with_the_columns_of_the_data(model, tmp_path):
    expected = [{"id": i, "input": f"Satz, {i}", "reference": f"line {i}"} for i in range(4)]
    for path in files_of(tmp_path, PAIRS):
        found = rows_of_file(model, path)
        assert found.rows == expected and found.conditions == [[7]] * 4, path
        assert rows_of_file(model, path, count=2).rows == expected[:2]
        backwards = rows_of_file(model, path, "en").rows[0]
        assert backwards == {"id": 0, "input": "line 0"}  # with `en` as the source, `de` is not a reference


def test_the_common_names_win_over_those_of_the_data(model, tmp_path):
    rows = [{"id": "x", "de": "no", "input": "a", "output": "b", "en": "no"}]
    for path in files_of(tmp_path, rows):
        assert rows_of_file(model, path).rows == [{"id": "x", "input": "a", "reference": "b"}]


def test_plain_lines_in_files_of_any_name(model, tmp_path):
    for name in ("f.txt", "newstest.de"):
        (tmp_path / name).write_text("ein Satz\n zwei\r\n")
        assert [row["input"] for row in rows_of_file(model, tmp_path / name).rows] == ["ein Satz", " zwei"]


@pytest.mark.parametrize("text", ['{"input": "eins"}\n\n{"input": "zwei"}\n', "eins\nzwei\n"])
def test_standard_input(model, tmp_path, text):
    (tmp_path / "stdin").write_text(text)
    original = os.dup(0)
    replacement = os.open(tmp_path / "stdin", os.O_RDONLY)
    try:
        os.dup2(replacement, 0)
        assert [row["input"] for row in rows_of_file(model, examples.Path("-")).rows] == ["eins", "zwei"]
    finally:
        os.dup2(original, 0)
        os.close(original)
        os.close(replacement)


@pytest.mark.parametrize(
    ("name", "content", "key", "place", "words"),
    [
        ("f.csv", "de,en\na,b\n", "dee", ":2", ("'dee'", "'de'", "de, en")),
        ("f.csv", "src,en\na,b\n", None, ":2", ("'input'", "'source'", "'de'")),
        ("f.csv", 'de,en\na,b\n"",b\n', None, ":3", ("'de'",)),
        ("f.csv", "", None, ":", ()),
        ("f.csv", "de,en\n", None, ":", ()),
        ("f.csv", "de,en\na\n", None, ":2", ("1 fields", "2")),
        ("f.txt", "a\n\nb\n", None, ":2", ()),
        ("f.txt", "a\n", "de", ":1", ("'de'",)),
        ("newstest.de", "a\n", "de", ":1", ("'de'",)),
        ("f.csv", "de;en\na;b\n", None, ":2", ("pass --separator ';'",)),
        ("f.jsonl", '{"input": ["a"]}\n', None, ":1", ("'input'", "list")),
        ("f.jsonl", '{"input": "a", "output": 3}\n', None, ":1", ("'output'", "int")),
    ],
)
def test_an_error_is_one_line_with_its_place(model, tmp_path, name, content, key, place, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        rows_of_file(model, tmp_path / name, key)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}{place}") and all(word in message for word in words)
    assert "\n" not in message


def test_real_text_beside_free_samples_is_cut_at_their_length(monkeypatch):
    """1,600 tokens beside samples of 16 have another entropy, whatever the model."""
    monkeypatch.setattr(
        examples, "decoded", lambda tokenizer, rows, clean_up: [" ".join(map(str, ids)) for ids in rows]
    )
    model = SimpleNamespace(config=Config(data=DataSettings(max_length=3)), tokenizer=None)
    assert examples.truncated(model, [1, 2, 3], "as it was") == "as it was"
    assert examples.truncated(model, [1, 2, 3, 4], "as it was") == "1 2 3"


@pytest.fixture
def encoding_model(shared):
    """A model of pairs with T5's tokenizer, which encodes for itself."""
    from elfcli.data.tokenizers import load_tokenizer

    config = Config(data=DataSettings(max_input_length=8))
    return SimpleNamespace(config=config, name="model", tokenizer=load_tokenizer(shared / "t5-small"))


@pytest.mark.parametrize("text", ["the tag </s> here", "<pad> is written", "a sentinel <extra_id_3>"])
def test_special_tokens_written_in_a_source_are_characters(encoding_model, tmp_path, text):
    path = tmp_path / "f.txt"
    path.write_text(text + "\n")
    by_file = rows_of_file(encoding_model, path, allow_unknown=True).conditions
    assert by_file == examples.sources_of_texts(encoding_model, [text], allow_unknown=True).conditions
    assert not set(by_file[0]) & (set(encoding_model.tokenizer.all_special_ids) - {2})


def test_sources_that_the_vocabulary_lacks_are_refused(encoding_model, tmp_path, capsys):
    path = tmp_path / "f.txt"
    path.write_text("你好\n")
    said = (
        r"does not know 1 of 2 tokens \(50.00%\) and loses 2 of 2 characters: '你' \(1\), '好' \(1\); .*--allow-unknown"
    )
    with pytest.raises(InputError, match=r"f.txt, source: .*" + said):
        rows_of_file(encoding_model, path)
    with pytest.raises(InputError, match=r"inputs, source: .*" + said):
        examples.sources_of_texts(encoding_model, ["你好"])
    assert rows_of_file(encoding_model, path, allow_unknown=True).conditions == [[3, 2]]
    assert "warning: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"input": "a", "output": ["b", "c"]}, {"reference": "b", "references": ["b", "c"]}),
        ({"input": "a", "references": ["b", "c"]}, {"reference": "b", "references": ["b", "c"]}),
        ({"input": "a", "output": ["b"]}, {"reference": "b"}),
        ({"translation": {"de": "a", "en": "b"}}, {"reference": "b"}),
    ],
)
def test_several_references_and_fields_of_objects(model, tmp_path, row, expected):
    (tmp_path / "f.jsonl").write_text(json.dumps(row) + "\n")
    data = {"settings": {"keys": ["translation.de", "translation.en"]}}
    (tmp_path / "data" / "elf_data.json").write_text(json.dumps(data))
    assert rows_of_file(model, tmp_path / "f.jsonl").rows == [{"id": 0, "input": "a"} | expected]


def test_sources_in_tables_of_any_layout_and_at_an_address(model, tmp_path):
    import fsspec

    from elfcli.corpus.files import Layout

    (tmp_path / "f.txt").write_text("a\tb\n")
    assert rows_of_file(model, tmp_path / "f.txt", "1", layout=Layout("\t", header=False)).rows[0]["input"] == "a"
    fsspec.filesystem("memory").pipe("/in/f.csv", 'de;en\n"a;c";b\n{'.encode("utf-16"))
    layout = Layout(";", encoding="utf-16")
    with pytest.raises(InputError, match=r"^memory://in/f.csv:3: 1 fields"):
        rows_of_file(model, "memory://in/f.csv", layout=layout)
    assert rows_of_file(model, "memory://in/f.csv", count=1, layout=layout).rows == [
        {"id": 0, "input": "a;c", "reference": "b"}
    ]
