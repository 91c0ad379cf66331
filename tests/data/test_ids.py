"""Ids outside the vocabulary are refused, and no token is read if the largest id is known."""

import json

import datasets
import numpy as np
import pytest
from huggingface_hub import constants

from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data import ids
from elfcli.data.folder import load_examples
from elfcli.errors import InputError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))


@pytest.fixture
def looks(monkeypatch):
    """Return the columns that were scanned."""
    seen, look = [], ids.largest_id
    monkeypatch.setattr(ids, "largest_id", lambda column: (seen.append(column), look(column))[1])
    return seen


def saved(folder, *parts):
    datasets.concatenate_datasets([datasets.Dataset.from_dict({"input_ids": part}) for part in parts]).save_to_disk(
        str(folder), num_shards=len(parts)
    )
    return load_examples(folder)


def test_the_first_wrong_row_is_named(tmp_path):
    examples = saved(tmp_path / "d", [[1], [2, 3]], [[], [4, 99, 5], [-1]])
    with pytest.raises(InputError, match=r"Row 3 .*'input_ids'.* 99"):
        ids.check_token_ids(examples, 99)
    with pytest.raises(InputError, match=r"Row 4 .* -1"):
        ids.check_token_ids(examples, 100)
    ids.check_token_ids(saved(tmp_path / "e", [[1, 9]]), 10)


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "int64"])
def test_the_largest_id_of_any_integers(tmp_path, kind):
    features = datasets.Features({"input_ids": datasets.List(datasets.Value(kind))})
    datasets.Dataset.from_dict({"input_ids": [[1, 100], [], [7]]}, features=features).save_to_disk(tmp_path / "d")
    examples = load_examples(tmp_path / "d")
    assert ids.largest_id(examples.tokens.input_ids) == 100
    assert ids.largest_id(examples.tokens.input_ids) == max(np.concatenate(examples.tokens.input_ids.values))


def test_what_elf_tokenize_wrote_is_never_scanned(tmp_path, looks):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": f"word {i}"}) + "\n" for i in range(20)))
    tokenize(Job(tmp_path / "d", inputs=(str(tmp_path / "t.jsonl"),), train_tokenizer=19))
    examples = load_examples(tmp_path / "d")
    (record,) = json.loads((tmp_path / "d" / "elf_data.json").read_text())["splits"].values()
    largest = max(np.concatenate(examples.tokens.input_ids.values))
    assert (examples.largest_id, record["fingerprint"]) == (largest, examples.fingerprint)
    ids.check_token_ids(examples, 1000)
    with pytest.raises(InputError, match=rf"'input_ids'.* {largest}.* {largest}"):
        ids.check_token_ids(examples, int(largest))
    assert looks == []


def test_rows_written_over_what_elf_tokenize_wrote_are_scanned(tmp_path, looks):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": f"word {i}"}) + "\n" for i in range(20)))
    tokenize(Job(tmp_path / "d", inputs=(str(tmp_path / "t.jsonl"),), train_tokenizer=19))
    datasets.Dataset.from_dict({"input_ids": [[5000]]}).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match="5000"):
        ids.check_token_ids(load_examples(tmp_path / "d"), 1000)
    assert len(looks) == 1


def test_other_data_is_scanned_once(tmp_path, looks):
    saved(tmp_path / "d", [[1, 2], [3]])
    for _ in range(3):
        ids.check_token_ids(load_examples(tmp_path / "d"), 1000)
    assert len(looks) == 1
    file = next((tmp_path / "d").glob("*.arrow"))
    file.touch()
    ids.check_token_ids(load_examples(tmp_path / "d"), 1000)
    assert len(looks) == 2
    assert not [path for path in (tmp_path / "d").rglob("*") if "elf" in path.name]


def test_a_cache_that_cannot_be_written_or_read_costs_a_scan_only(tmp_path, monkeypatch, looks):
    examples = saved(tmp_path / "d", [[1, 2]])
    ids.check_token_ids(examples, 1000)
    ids.note_of(examples).write_text("{")
    ids.check_token_ids(examples, 1000)
    monkeypatch.setattr(constants, "HF_HOME", "/proc/none")
    ids.check_token_ids(examples, 1000)
    assert len(looks) == 3
