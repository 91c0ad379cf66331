"""BLEU, ROUGE and exact match computed by hand; samples and references, whose errors name file and line."""

import gzip
import json
import math
from pathlib import Path

import pyarrow
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from elfcli.errors import InputError
from elfcli.outputs import check_output_file, write_result
from elfcli.scoring.bleu import corpus_bleu, exact_match
from elfcli.scoring.bootstrap import interval
from elfcli.scoring.rouge import rouge
from elfcli.scoring.samples_file import read_jsonl, read_pairs, read_samples
from elfcli.ui.table import aligned

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(path: Path, rows: list) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def samples(folder: Path, count: int = 3, **more) -> Path:
    return jsonl(folder / "samples.jsonl", [{"id": i, "generated": f"text {i}"} | more for i in range(count)])


def test_bleu_by_hand():
    result = corpus_bleu(["the cat sat on the mat"], ["the cat sat on a mat"])
    assert result.bleu == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    short = corpus_bleu(["the cat sat on"], ["the cat sat on a mat"])
    assert short.brevity_penalty == pytest.approx(math.exp(1 - 6 / 4))
    assert short.bleu == pytest.approx(100 * short.brevity_penalty)


def test_bleu_is_lowercase_of_effective_order_and_over_the_corpus():
    assert corpus_bleu(["A Cat"], ["a cat"]).bleu == pytest.approx(100)
    generated, references = ["the old man", "", "a big dog ran ."], ["the old man slept", "no", "A big dog ran ."]
    theirs = sacrebleu.corpus_bleu(generated, [references], lowercase=True, use_effective_order=True)
    result = corpus_bleu(generated, references)
    assert result.bleu == theirs.score
    assert "case:lc|eff:yes|tok:13a|smooth:exp" in result.signature
    assert result.as_dict() == {
        "metric": "bleu",
        "value": result.bleu,
        "chrf": sacrebleu.corpus_chrf(generated, [references]).score,
        "interval": interval(result.resampled),
        "num_samples": 3,
        "brevity_penalty": result.brevity_penalty,
        "signature": result.signature,
    }


def test_rouge_by_hand():
    one = rouge(["the cat sat down"], ["The cats sat"])  # the stemmer makes cats cat
    assert (one.rouge1, one.rouge2, one.rougeL) == pytest.approx((100 * 6 / 7, 80, 100 * 6 / 7))
    two = rouge(["the cat sat down", "", "sat the cat"], ["The cats sat", "cat", "the cat sat"])
    assert two.rouge1 == pytest.approx((100 * 6 / 7 + 0 + 100) / 3)
    assert two.rouge2 == pytest.approx((80 + 0 + 50) / 3)
    assert two.rougeL == pytest.approx((100 * 6 / 7 + 0 + 100 * 2 / 3) / 3)
    written = two.as_dict()
    assert (written["metric"], written["value"], written["num_samples"]) == ("rouge", two.rougeL, 3)
    assert [written[kind] for kind in ("rouge1", "rouge2", "rougeL")] == [two.rouge1, two.rouge2, two.rougeL]


def test_exact_match():
    assert exact_match(["a b", " c\n", "d", "E"], ["a b", "c", "x", "e"]) == 0.5


@pytest.mark.parametrize("score", [corpus_bleu, rouge, exact_match])
def test_scores_need_as_many_references(score):
    with pytest.raises(InputError, match=r"2 .* 1 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(InputError):
        score([], [])


@given(st.lists(st.fixed_dictionaries({"id": st.integers(), "generated": TEXT}), min_size=1), st.booleans())
def test_jsonl_comes_back(tmp_path_factory, rows, ascii_only):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    write(path, "\ufeff" + "\r\n\n".join(lines))
    assert read_jsonl(path) == rows
    assert read_samples(path) == rows


def test_samples_without_ids_are_counted(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"generated": "a"}, {"generated": "b", "id": "x"}, {"generated": ""}])
    assert [row["id"] for row in read_samples(path)] == [0, "x", 2]


@pytest.mark.parametrize(
    ("content", "place", "name"),
    [
        ("", "", ""),
        ("\n\n", "", ""),
        ('{"generated": "a"}\n\n{"generated": \n', ":3", "JSON"),
        ("plain text\n", ":1", "JSON"),
        ("[" * 100_000, ":1", "JSON"),
        ('{"generated": "a"}\n["a"]\n', ":2", "list"),
        ('[{"generated": "a"}]\n', "", "list"),
        (b'{"generated": "a"}\n{"generated": "\xe4"}\n', ":2", "UTF-8"),
        ('{"generated": "a"}\n'.encode("utf-16"), ":1", ""),
        ('{"generated": "a"}\n{"generatd": "a"}\n', ":2", "'generatd'"),
        ("{}\n", ":1", "'generated'"),
        ('{"generated": null}\n', ":1", "NoneType"),
        ('{"generated": ["a"]}\n', ":1", "list"),
        ('{"generated": "\\ud800"}\n', ":1", "surrogate"),
    ],
)
def test_an_error_of_bad_samples_is_one_line_with_their_place(tmp_path, content, place, name):
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(InputError) as caught:
        read_samples(path)
    message = str(caught.value)
    assert message.startswith(f"{path}{place}") and name in message
    assert "\n" not in message and len(message) < 400 and "--skip-bad" not in message


def test_missing_files(tmp_path):
    samples(tmp_path)
    with pytest.raises(InputError, match=r"sample\.jsonl: .*'samples\.jsonl'"):
        read_samples(tmp_path / "sample.jsonl")
    with pytest.raises(InputError, match=str(tmp_path)):
        read_samples(tmp_path)


def test_references_within_the_samples(tmp_path):
    path = samples(tmp_path, reference="r")
    assert read_pairs(path) == (["text 0", "text 1", "text 2"], ["r", "r", "r"])
    bare = samples(tmp_path)
    with pytest.raises(InputError, match=r":1: .*'reference'.* id, generated.*--references"):
        read_pairs(bare)


def test_several_references_of_a_text(tmp_path):
    rows = [{"id": 0, "generated": "a cat", "reference": "x", "references": ["the dog", "a cat"]},
            {"id": 1, "generated": "one", "references": ["one"]}]  # fmt: skip
    path = jsonl(tmp_path / "samples.jsonl", rows)
    expected = ["a cat", "one"], [["the dog", "a cat"], ["one"]]
    assert read_pairs(path) == expected
    lines = jsonl(tmp_path / "r.jsonl", [{"output": ["the dog", "a cat"]}, {"output": "one"}])
    assert read_pairs(path, lines) == (expected[0], [["the dog", "a cat"], "one"])
    streams = [["the dog", "one"], ["a cat", None]]
    theirs = sacrebleu.corpus_bleu(expected[0], streams, lowercase=True, use_effective_order=True)
    bleu = corpus_bleu(*expected)
    assert bleu.bleu == pytest.approx(100) == theirs.score and "nrefs:var" in bleu.signature
    assert rouge(*expected).rougeL == 100 and rouge(["a cat"], [["the dog", "a mat", ""]]).rouge1 == 50
    with pytest.raises(InputError, match=r"samples.jsonl:1: 'references' is an empty list"):
        read_pairs(jsonl(tmp_path / "samples.jsonl", [rows[0] | {"references": []}]))


@pytest.mark.parametrize("key", ["reference", "output", "target"])
def test_references_by_line_order(tmp_path, key):
    path = samples(tmp_path, reference="not this")
    lines = jsonl(tmp_path / "data.jsonl", [{"input": "x", key: f"r{i}"} for i in range(3)])
    assert read_pairs(path, lines)[1] == ["r0", "r1", "r2"]


def test_references_as_text_lines(tmp_path):
    path = samples(tmp_path)
    assert read_pairs(path, write(tmp_path / "r.txt", "r0\r\n\nr\u2028 2"))[1] == ["r0", "", "r\u2028 2"]
    with pytest.raises(InputError, match=r"2 .* 3 samples"):
        read_pairs(path, write(tmp_path / "r.txt", "r0\nr1\n"))


def table_files(folder: Path, rows: list[dict]) -> list[Path]:
    """The rows in every format with columns."""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "r.parquet")
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    return [
        write(folder / "r.csv", "".join(",".join(f'"{text}"' for text in line) + "\n" for line in lines)),
        write(folder / "r.tsv", "".join("\t".join(line) + "\n" for line in lines)),
        write(folder / "r.jsonl.gz", packed),
        folder / "r.parquet",
    ]


def test_references_in_every_format_by_key(tmp_path):
    path = samples(tmp_path, reference="not this")
    for file in table_files(tmp_path, [{"de": f"q, {i}", "en": f"r, {i}"} for i in range(3)]):
        assert read_pairs(path, file, "en")[1] == ["r, 0", "r, 1", "r, 2"]
        with pytest.raises(InputError, match=r"'reference'.* de, en.*--reference-key"):
            read_pairs(path, file)
        with pytest.raises(InputError, match=r"'enn'.*'en'"):
            read_pairs(path, file, "enn")
    for file in table_files(tmp_path, [{"id": str(i), "reference": f"r{i}"} for i in (2, 0, 1)]):
        assert read_pairs(path, file)[1] == ["r0", "r1", "r2"]
    with pytest.raises(InputError, match=r"r.txt.*--references"):
        read_pairs(path, write(tmp_path / "r.txt", "a\nb\nc\n"), "en")
    with pytest.raises(InputError, match="--references"):
        read_pairs(path, None, "en")
    with pytest.raises(InputError, match=r"r.csv"):
        read_pairs(path, write(tmp_path / "r.csv", "en\n"), "en")


def test_references_by_id(tmp_path, capsys):
    path = samples(tmp_path)
    more = jsonl(tmp_path / "r.jsonl", [{"id": str(i), "output": f"r{i}"} for i in (3, 2, 0, 1)])
    assert read_pairs(path, more)[1] == ["r0", "r1", "r2"]
    fewer = jsonl(tmp_path / "r.jsonl", [{"id": i, "output": f"r{i}"} for i in (2, 0, 7)])
    with pytest.raises(InputError, match=r"samples.jsonl:2: .*id 1 "):
        read_pairs(path, fewer)
    foreign = jsonl(tmp_path / "r.jsonl", [{"id": f"doc-{i}", "output": f"r{i}"} for i in range(3)])
    assert read_pairs(path, foreign)[1] == ["r0", "r1", "r2"]
    assert "warning" in capsys.readouterr().err  # ids of two kinds, or of two splits


SOURCES = ("Der alte Mann schläft.", "Ein Hund läuft nach Hause", "Sie sieht es")


def with_sources(path: Path, key: str, sources, **more) -> Path:
    return jsonl(path, [{"id": i, key: text, "reference": f"r{i}"} | more for i, text in enumerate(sources)])


def test_references_of_another_split_are_refused(tmp_path):
    path = with_sources(tmp_path / "s.jsonl", "input", SOURCES, generated="a")
    for written in (SOURCES, [text.replace("Hund", "Dackel") + " , und mehr" for text in SOURCES]):
        assert len(read_pairs(path, with_sources(tmp_path / "r.jsonl", "source", written))[1]) == 3
    read_pairs(path, with_sources(tmp_path / "r.jsonl", "de", SOURCES[::-1]))  # whose column is not a known source
    other = with_sources(tmp_path / "r.jsonl", "source", SOURCES[::-1])
    with pytest.raises(InputError, match=r"s.jsonl:1: .*r.jsonl:1.* 2 of 3"):
        read_pairs(path, other)
    for row in (lines := read_jsonl(other)):
        del row["id"]
    with pytest.raises(InputError, match=r"s.jsonl:1.* 2 of 3"):
        read_pairs(path, jsonl(tmp_path / "no-ids.jsonl", lines))


def test_samples_of_two_splits_in_one_file_are_refused(tmp_path):
    twice = [{"id": 0, "generated": text, "input": "a", "reference": "b"} for text in ("of seed 0", "of seed 1")]
    assert len(read_samples(jsonl(tmp_path / "s.jsonl", [*twice, {"id": 0, "generated": "more"}]))) == 3
    for key in ("input", "reference"):
        path = jsonl(tmp_path / "s.jsonl", [*twice, twice[0] | {key: "other"}])
        for read in (read_samples, read_pairs):
            with pytest.raises(InputError, match=rf"s.jsonl:3: id 0 .*line 1.*{key}"):
                read(path)


def test_ids_of_references_are_not_matched_with_places(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"generated": "a"}, {"generated": "b"}])
    backwards = jsonl(tmp_path / "r.jsonl", [{"id": 1, "output": "r1"}, {"id": 0, "output": "r0"}])
    assert read_pairs(path, backwards)[1] == ["r1", "r0"]


@pytest.mark.parametrize(
    ("rows", "place", "name"),
    [
        ([{"id": 0, "text": "a"}], ":1", "id, text"),
        ([{"output": "a"}, {"output": ["a", 3]}], ":2", "'output'"),
        ([{"id": 0, "output": "a"}, {"id": 0, "output": "b"}], ":2", "id 0"),
        ([{"id": 0, "output": "a"}, {"output": "b"}], ":2", "'id'"),
        ([{"output": "a"}, {"id": 0, "output": "b"}], ":1", "'id'"),
        ([{"output": "a"}, {"output": "b"}], "", "3 samples"),
    ],
)
def test_bad_references(tmp_path, rows, place, name):
    path = jsonl(tmp_path / "r.jsonl", rows)
    with pytest.raises(InputError) as caught:
        read_pairs(samples(tmp_path), path)
    assert str(caught.value).startswith(f"{path}{place}") and name in str(caught.value)


def test_results_are_overwritten_only_with_the_option(tmp_path):
    path = tmp_path / "new" / "r.json"
    write_result(path, {"metric": "bleu", "value": 1.0})
    with pytest.raises(InputError, match=r"--json.* --overwrite"):
        write_result(path, {"metric": "bleu", "value": 2.0})
    assert json.loads(path.read_text())["value"] == 1
    write_result(path, {"metric": "bleu", "value": 2.0}, overwrite=True)
    assert json.loads(path.read_text())["value"] == 2
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(InputError, match=r"--output|--json"):
        check_output_file(tmp_path, overwrite=True)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match=r"--output|--json"):
        write_result(tmp_path / "link", {"metric": "bleu", "value": 3.0}, overwrite=True)
    assert (tmp_path / "link").is_symlink() and json.loads(path.read_text())["value"] == 2
    with pytest.raises(InputError, match=r"r.json"):
        check_output_file(path / "r.json", overwrite=True)
    check_output_file(None, overwrite=False)


def test_table_is_aligned():
    assert aligned([("metric", "value", "of"), ("BLEU", "1,234.57", "all"), ("b", "0.00", "")], numbers=(1,)) == [
        "metric     value  of",
        "BLEU    1,234.57  all",
        "b           0.00",
    ]
