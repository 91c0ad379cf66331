"""Data from any source opens; its problems are reported in one line."""

import json
import random

import datasets
import numpy as np
import pytest
from helpers import GPT2_TOKENIZER, T5

from elfcli.data import folder as data
from elfcli.data import tokenizers
from elfcli.data.batches import TokenColumn, TokenTable, column_from_rows
from elfcli.data.folder import Examples
from elfcli.errors import InputError
from elfcli.runs.examples import without_held_out


def rows(count: int) -> dict[str, list]:
    return {
        "input_ids": [list(range(n % 5)) for n in range(count)],
        "condition_input_ids": [[n, n + 1] for n in range(count)],
        "input": [f"in {n}" for n in range(count)],
        "reference": [f"ref {n}" for n in range(count)],
    }


def test_a_plain_saved_dataset_opens_over_many_chunks(tmp_path):
    parts = [datasets.Dataset.from_dict(rows(7)), datasets.Dataset.from_dict(rows(5))]
    datasets.concatenate_datasets(parts).save_to_disk(str(tmp_path / "d"), num_shards=3)
    examples = data.load_examples(tmp_path / "d")
    expected = [*rows(7)["input_ids"], *rows(5)["input_ids"]]
    assert [examples.tokens[n]["input_ids"].tolist() for n in range(12)] == expected
    assert examples.tokens[8]["condition_input_ids"].tolist() == [1, 2]
    assert examples.tokens.input_ids.lengths().tolist() == [len(row) for row in expected]
    assert examples.texts(9) == {"input": "in 2", "reference": "ref 2"}
    assert examples.metadata is None and len(examples) == 12
    assert data.split_names(tmp_path / "d") == ("train",)


@pytest.mark.parametrize("kind", ["int32", "int64", "uint16"])
@pytest.mark.parametrize("large", [False, True])
def test_integer_types_and_large_lists(tmp_path, kind, large):
    make = datasets.LargeList if large else datasets.List
    features = datasets.Features({"input_ids": make(datasets.Value(kind))})
    datasets.Dataset.from_dict({"input_ids": [[1, 2], [], [3]]}, features=features).save_to_disk(str(tmp_path / "d"))
    tokens = data.load_examples(tmp_path / "d").tokens
    assert [tokens[n]["input_ids"].tolist() for n in range(3)] == [[1, 2], [], [3]]
    assert tokens[0]["input_ids"].dtype == "int32"


def test_fixed_size_lists_and_shuffled_rows(tmp_path):
    features = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"), length=2)})
    dataset = datasets.Dataset.from_dict({"input_ids": [[n, n + 1] for n in range(9)]}, features=features)
    order = random.Random(0).sample(range(9), 9)
    tokens = data.token_table(dataset.select(order), "here")
    assert [tokens[n]["input_ids"][0] for n in range(9)] == order
    part = data.token_table(dataset.select(range(3, 6)), "here")
    assert [part[n]["input_ids"].tolist() for n in range(3)] == [[3, 4], [4, 5], [5, 6]]


def test_splits(tmp_path):
    splits = {name: datasets.Dataset.from_dict(rows(n)) for name, n in (("train", 4), ("validation", 2))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "d"))
    assert len(data.load_examples(tmp_path / "d", "validation")) == 2
    assert data.split_names(tmp_path / "d") == ("train", "validation")
    with pytest.raises(InputError, match=r"'valid' \(did you mean 'validation'\?\).* train, validation"):
        data.load_examples(tmp_path / "d", "valid")
    with pytest.raises(InputError, match="train, validation"):
        data.load_examples(tmp_path / "d", None)
    assert len(data.load_examples(tmp_path / "d" / "train", None)) == 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"inputs_ids": [[1]]}, "did you mean 'inputs_ids'"),
        ({"input_ids": []}, "examples"),
        ({"input_ids": ["a"]}, "'input_ids'.*string"),
        ({"input_ids": [[0.5]]}, "'input_ids'.*double"),
        ({"input_ids": [[1], None]}, "'input_ids'.* 0 and 2"),
        ({"input_ids": [[1, None]]}, "'input_ids'.* 0 and 1"),
        ({"input_ids": [[1]], "condition_input_ids": [1]}, "'condition_input_ids'.*int64"),
    ],
)
def test_unfit_columns(tmp_path, columns, message):
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(InputError, match=message) as caught:
        data.load_examples(tmp_path / "d")
    assert "\n" not in str(caught.value)


def test_folders_without_data(tmp_path):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(InputError, match="did you mean 'corpus'"):
        data.load_examples(tmp_path / "corpuss")
    with pytest.raises(InputError, match=r"state\.json"):
        data.load_examples(tmp_path / "corpus")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file"):
        data.load_examples(tmp_path / "file")
    (tmp_path / "corpus" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="corpus"):
        data.load_examples(tmp_path / "corpus")
    (tmp_path / "corpus" / "dataset_dict.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_dict\.json"):
        data.load_examples(tmp_path / "corpus")


def test_an_uploaded_save_to_disk_folder_is_read_as_such(tmp_path, monkeypatch):
    datasets.Dataset.from_dict(rows(3)).save_to_disk(str(tmp_path / "snapshot"))
    state = json.loads((tmp_path / "snapshot" / "state.json").read_text())
    wrong = datasets.DatasetDict({"train": datasets.Dataset.from_list([state])})
    monkeypatch.setattr(data, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: wrong)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, repo_type: str(tmp_path / "snapshot"))
    assert len(data.load_examples("someone/data-t5")) == 3
    right = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows(5))})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: right)
    assert len(data.load_examples("someone/data-t5")) == 5
    with pytest.raises(InputError, match="'test'"):
        data.load_examples("someone/data-t5", "test")


def test_no_network_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(data, "hub_reachable", lambda: False)
    monkeypatch.setattr(tokenizers, "hub_reachable", lambda: False)
    with pytest.raises(InputError, match=r"someone/data-t5.*Hub"):
        data.load_examples("someone/data-t5")
    with pytest.raises(InputError, match=r"--tokenizer DIR .*--train-tokenizer SIZE"):
        tokenizers.load_tokenizer("someone/none-such")


def test_tokenizers(tmp_path):
    with pytest.raises(InputError, match=tmp_path.name) as caught:
        tokenizers.load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    if not T5.is_dir():
        pytest.skip("the shared T5 vocabulary is missing")
    tokenizer = tokenizers.load_tokenizer(T5)
    assert (tokenizers.vocab_size(tokenizer), tokenizers.pad_id(tokenizer), tokenizers.eos_id(tokenizer)) == (
        32100,
        0,
        1,
    )


APART = "Hello , world . It 's fine , is n't it ? I 'm we 've they 're ' quoted ' ok !"


@pytest.mark.parametrize("where", [T5, GPT2_TOKENIZER])
def test_clean_up_produces_the_text_of_the_published_protocol(where):
    """Texts are those of transformers 4 for any tokenizer; transformers 5 never cleans up BPE."""
    if not where.is_dir():
        pytest.skip("the shared tokenizers are missing")
    tokenizer = tokenizers.load_tokenizer(where)
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (APART, "plain")]
    assert tokenizers.decoded(tokenizer, rows, clean_up=False) == [APART, "plain"]
    expected = "Hello, world. It's fine, isn't it? I'm we've they're'quoted'ok!"
    assert tokenizers.decoded(tokenizer, rows, clean_up=True) == [expected, "plain"]
    assert tokenizer.clean_up_tokenization(APART) == expected


def test_the_last_rows_are_held_out_without_a_validation_split():
    """At most 1% is held out, across Arrow chunks and with texts."""
    parts = [column_from_rows([[i, i + 1] for i in range(start, start + 150)]) for start in (0, 150)]
    column = TokenColumn(
        tuple(p.values[0] for p in parts), tuple(p.offsets[0] for p in parts), np.array([0, 150, 300], np.int64)
    )
    examples = Examples(TokenTable(column, column), lambda row: {"text": str(row)}, None, "data")
    train, last = without_held_out(examples, 64)
    assert (len(train), len(last)) == (297, 3) and last.texts(2) == {"text": "299"}
    assert [last.tokens[i]["input_ids"].tolist() for i in range(3)] == [[297, 298], [298, 299], [299, 300]]
    assert [train.tokens[i]["condition_input_ids"][0] for i in (0, 149, 150, 296)] == [0, 149, 150, 296]
    assert len(without_held_out(examples, 2)[1]) == 2 and without_held_out(examples, 0)[1] is None
