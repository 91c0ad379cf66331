"""Scores of filled gaps: the figures, and the two fills that they are compared with."""

import json

import pytest

from elfcli.corpus.tokenize import Job, tokenize
from elfcli.corpus.vocabulary import train_tokenizer
from elfcli.errors import InputError
from elfcli.scoring import metric
from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.gaps import GapRow, another, bigram, gap_rows
from elfcli.scoring.judge import Judge
from elfcli.scoring.ngram import load_ngram_judge
from elfcli.scoring.score import ScoreOptions, Texts

ROWS = [
    {"template": "the [..] sat on [..]", "gaps": ["cat", "a mat"], "reference": "the cat sat on the mat",
     "kind": "several"},
    {"template": "one [..]", "gaps": [""], "reference_gaps": ["old dog ran"], "kind": "prefix"},
    {"template": "a[..] b", "gaps": [""], "reference_gaps": [""], "kind": "span"},
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted")
    texts = ["ab cd ef", "ab cd gh", "ab cd ef", "kl ef"]
    (folder / "a.txt").write_text("\n".join(texts))
    (folder / "words").mkdir()
    train_tokenizer(texts, folder / "words", None)
    tokenize(Job(folder / "data", inputs=(str(folder / "a.txt"),), tokenizer=str(folder / "words")))
    return str(folder / "data")


def test_figures_of_gaps():
    rows = gap_rows(ROWS)
    assert [list(row.real) for row in rows] == [["cat", "the mat"], ["old dog ran"], [""]]
    found = metric("gaps").compute(Texts([], rows=ROWS), ScoreOptions("auto"))
    assert found.exact == 50 and found.num_gaps == 4 and found.length_error == 3 / 4
    assert found.empty_gaps == 25, "an empty gap is right where the real one is empty"
    assert found.bleu == corpus_bleu(["cat", "a mat", ""], ["cat", "the mat", "old dog ran"], "auto").bleu
    assert found.ppl is None and found.signature.startswith("metric:gaps|nrefs:1")
    by_kind = {(one["kind"], one["fill"]): one for one in found.by_kind}
    assert by_kind["several", "filled"]["exact"] == 50 and by_kind["all", "real text"]["bleu"] == pytest.approx(100)
    assert by_kind["span", "filled"]["bleu"] is None, "there is nothing to compare with"


def test_another_text_gives_the_gaps_that_follow():
    rows = [GapRow(row.template, row.gaps, row.real, "") for row in gap_rows(ROWS)]
    assert another(rows) == [["old dog ran", ""], [""], ["cat"]]


def test_the_bigram_fill_continues_what_is_known_for_the_real_length(data):
    judge = load_ngram_judge(data)
    rows = [{"template": t, "gaps": [""], "reference_gaps": [real]} for t, real in
            [("ab[..]", " cd"), ("[..] ef", "ab cd"), ("ab cd [..]", "gh")]]  # fmt: skip
    (first,), (second,), (third,) = bigram(gap_rows(rows), judge)
    assert (first, second, third) == (" cd", "ab cd", "ef")
    real = metric("gaps").compute(Texts([], rows=rows), ScoreOptions("auto", judge=Judge("ngram", data=data)))
    by_fill = {one["fill"]: one for one in real.by_kind}
    assert by_fill["bigram"]["exact"] == pytest.approx(200 / 3) and by_fill["real text"]["ppl"] > 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"gaps": []}, "no 'template' and 'gaps'"),
        ({"template": "a [..]", "gaps": ["b"]}, "neither 'reference_gaps' nor a 'reference'"),
        ({"template": "a [..]", "gaps": ["b"], "reference": "b c"}, "its gaps or real text do not fit its template"),
        ({"template": "a", "gaps": []}, "no gap in 'a'"),
    ],
)
def test_samples_without_gaps_are_one_line(elf, tmp_path, row, why):
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps({"generated": "a b"} | row) + "\n")
    code, _, err = elf("eval-gaps", file)
    assert code == 2 and f"{file}:1: {why}" in err and err.count("\n") == 1
    with pytest.raises(InputError, match="no samples"):
        gap_rows([])
