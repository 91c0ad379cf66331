"""The signature has `protocol:paper` if every setting is the paper's; earlier signatures stay comparable."""

import json

import pytest
from gpt2_files import write_gpt2, write_judge

from elfcli.scoring import protocol
from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.judge import Judge
from elfcli.scoring.perplexity import perplexity
from elfcli.scoring.report import differences, reports
from elfcli.scoring.rouge import rouge
from elfcli.scoring.samples_file import SampleProvenance
from elfcli.scoring.score import Texts

TEXTS, REAL = ["The old man sleeps here", "a dog"], ["the old man sleeps there", "a dog runs home"]


@pytest.fixture
def large(tmp_path, monkeypatch) -> str:
    """A small judge with the name, vocabulary and window of GPT-2 Large, whose shape passes for its shape."""
    folder = write_judge(tmp_path / "gpt2-large", window=1024)
    config = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr(protocol, "GPT2_LARGE", {size: config[size] for size in protocol.GPT2_LARGE})
    return str(folder)


def named(signature: str) -> str:
    return dict(part.partition(":")[::2] for part in signature.split("|"))["protocol"]


def test_perplexity_has_the_papers_protocol_if_nothing_departs(large, tmp_path):
    assert named(perplexity(TEXTS, Judge(large, batch_size=1)).signature) == "paper"
    assert named(perplexity(TEXTS, Judge(large, tokenizer=large)).signature) == "paper"
    for judge, expected in (
        (Judge(large, dtype="bfloat16"), "custom (dtype)"),
        (Judge(large, max_length=512), "custom (window)"),
        (Judge(str(write_judge(tmp_path / "other")), dtype="bfloat16"), "custom (judge, dtype, window)"),
    ):
        assert named(perplexity(TEXTS, judge).signature) == expected


def test_a_judge_of_another_shape_or_name_is_not_gpt2_large(large, tmp_path, monkeypatch):
    class Shape:
        vars().update(protocol.GPT2_LARGE)

    for name in ("gpt2-large", "gpt2-large@main", "openai-community/gpt2-large", large, f"{large}/"):
        assert protocol.is_gpt2_large(name, Shape)
    for name in ("gpt2", "someone/gpt2-large", str(write_gpt2(tmp_path / "tuned", 50, 60))):
        assert not protocol.is_gpt2_large(name, Shape)
    monkeypatch.setitem(protocol.GPT2_LARGE, "n_layer", 36)
    assert not protocol.is_gpt2_large(large, Shape)


def test_another_vocabulary_is_named(large, tmp_path):
    tokenizer = tmp_path / "lower"
    tokenizer.mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tokenizer / name).write_text((tmp_path / "gpt2-large" / name).read_text())
    tokens = json.loads((tokenizer / "vocab.json").read_text())
    tokens["Ġthe"], tokens["Ġof"] = tokens["Ġof"], tokens["Ġthe"]
    (tokenizer / "vocab.json").write_text(json.dumps(tokens))
    assert named(perplexity(TEXTS, Judge(large, tokenizer=str(tokenizer))).signature) == "custom (retokenised)"


def test_bleu_by_sacrebleus_defaults(elf, tmp_path):
    sacrebleu = pytest.importorskip("sacrebleu")
    ours, theirs = corpus_bleu(TEXTS, REAL, "sacrebleu"), sacrebleu.corpus_bleu(TEXTS, [REAL])
    assert ours.bleu == theirs.score != corpus_bleu(TEXTS, REAL).bleu
    assert ours.signature.startswith("nrefs:1|case:mixed|eff:no|") and named(ours.signature) == "sacrebleu"
    path, result = tmp_path / "s.jsonl", tmp_path / "bleu.json"
    rows = [{"generated": text, "reference": real} for text, real in zip(TEXTS, REAL, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert elf("eval-bleu", path, "--protocol", "sacrebleu", "--json", result)[0] == 0
    assert json.loads(result.read_text())["value"] == ours.bleu
    assert "protocol:paper" in elf("eval-bleu", path)[1] and "protocol:paper" in elf("eval-rouge", path)[1]


@pytest.mark.parametrize(("clean_up", "expected"), [(True, "paper"), (None, "paper"), (False, "custom (clean_up)")])
def test_texts_decoded_without_clean_up_depart_from_the_paper(clean_up, expected):
    texts = Texts(TEXTS, REAL, origin=SampleProvenance({}, clean_up, "validation"))
    found = [corpus_bleu(TEXTS, REAL).as_dict(), rouge(TEXTS, REAL).as_dict()]
    assert [named(score["signature"]) for score in reports(found, texts)] == [expected, expected]
    (own,) = reports([corpus_bleu(TEXTS, REAL, "sacrebleu").as_dict()], texts)
    assert named(own["signature"]) == "sacrebleu"


def test_departures_are_listed_together():
    once = protocol.departing("metric:ppl|protocol:custom (judge)|dtype:float32", "clean_up")
    assert once == "metric:ppl|protocol:custom (judge, clean_up)|dtype:float32"
    assert protocol.departing("metric:mauve|dtype:float32", "clean_up") == "metric:mauve|dtype:float32"


def test_signatures_that_do_not_name_the_protocol_stay_comparable():
    """Those of earlier versions: none for BLEU and ROUGE, always the paper's for perplexity."""
    now = corpus_bleu(TEXTS, REAL).signature
    assert differences([now.replace("|protocol:paper", ""), now]) == []
    assert differences(["metric:ppl|protocol:paper|window:64", "metric:ppl|protocol:custom (window)|window:64"]) == []
    other = differences([now, corpus_bleu(TEXTS, REAL, "sacrebleu").signature])
    assert other == ["case: lc, mixed", "eff: yes, no"]
