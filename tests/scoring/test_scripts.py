"""BLEU and ROUGE of texts in other scripts, and what is said if a score is blind to them."""

import json

import pytest

from elfcli.config.resolve import resolve
from elfcli.errors import InputError
from elfcli.evaluation.evaluate import protocol_of
from elfcli.sampling.candidates import most_alike
from elfcli.scoring import metric, protocol
from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.protocol import bleu_tokenizer, script_of, unicode_words
from elfcli.scoring.rouge import rouge

RUSSIAN = ["Старик спит здесь", "собака бежит домой"]
CHINESE, CHANGED = ["今天天气很好我们去公园"], ["今天天气很好我们去花园"]


def parts(signature: str) -> dict[str, str]:
    return dict(part.partition(":")[::2] for part in signature.split("|"))


@pytest.mark.parametrize(
    "texts", [RUSSIAN, ["यह एक छोटी किताब है"], ["我們去公園"], ["Ein größerer Übersetzungsfehler"]]
)
def test_rouge_of_identical_texts_is_100_in_any_script(texts):
    found = rouge(texts, texts, "auto")
    assert (found.rouge1, found.rouge2, found.rougeL) == (100, 100, 100)
    assert parts(found.signature) | {"protocol": "unicode", "tok": "unicode", "stemmer": "no"} == parts(found.signature)


def test_rouge_does_not_split_inside_words():
    """The paper's finds `gr` and one of the two halves in both."""
    assert rouge(["Größe"], ["größer"], "paper").rouge1 == 50 and rouge(["Größe"], ["größer"], "auto").rouge1 == 0


def test_a_paper_score_that_is_blind_warns(capsys):
    assert rouge(RUSSIAN, RUSSIAN, "paper").rougeL == 0
    assert corpus_bleu(CHANGED, CHINESE, "paper").bleu == 0
    first, second = capsys.readouterr().err.splitlines()
    assert "100.0%" in first and "13a" in second and all("--protocol unicode" in line for line in (first, second))
    assert rouge(["the cat"], ["the café"], "auto") and corpus_bleu(RUSSIAN, RUSSIAN, "paper").bleu == pytest.approx(
        100
    )
    assert not capsys.readouterr().err


def test_bleu_of_chinese_with_one_character_changed():
    sacrebleu = pytest.importorskip("sacrebleu")
    found = corpus_bleu(CHANGED, CHINESE, "auto")
    assert (
        found.bleu == sacrebleu.corpus_bleu(CHANGED, [CHINESE], tokenize="zh").score == pytest.approx(80.71, abs=0.01)
    )
    assert found.chrf == sacrebleu.corpus_chrf(CHANGED, [CHINESE]).score == pytest.approx(76.96, abs=0.01)
    assert (parts(found.signature)["tok"], parts(found.signature)["protocol"]) == ("zh", "unicode")
    own = corpus_bleu(CHANGED, CHINESE, "paper", "char")
    assert own.bleu > 0 and parts(own.signature)["protocol"] == "custom (tokenizer)"


@pytest.mark.parametrize(
    ("text", "script", "tokenizer", "words"),
    [
        ("Я студент", "words", "13a", ["я", "студент"]),
        ("a café", "words", "13a", ["a", "café"]),
        ("私は学生です", "ja", "char", ["私", "は", "学", "生", "で", "す"]),
        ("나는 학생입니다", "ko", "char", ["나는", "학생입니다"]),
        ("ฉันเป็น", "none", "char", ["ฉั", "น", "เ", "ป็", "น"]),
        ("मैं छात्र हूँ।", "other", "intl", ["मैं", "छात्र", "हूँ"]),
        ("12 !", "words", "13a", ["12"]),
    ],
)
def test_the_tokenizer_follows_the_script(monkeypatch, text, script, tokenizer, words):
    monkeypatch.setattr(protocol, "find_spec", lambda name: None)  # as without sacrebleu[ja] and [ko]
    bleu_tokenizer.cache_clear()
    assert script_of([text]) == script and bleu_tokenizer((text,)) == tokenizer and unicode_words(text) == words
    monkeypatch.setattr(protocol, "find_spec", lambda name: True)
    bleu_tokenizer.cache_clear()
    assert bleu_tokenizer((text,)) == {"ja": "ja-mecab", "ko": "ko-mecab"}.get(script, tokenizer)
    bleu_tokenizer.cache_clear()


def test_the_consensus_of_chinese_candidates_is_not_the_first():
    assert most_alike(["我昨天买了一本书", "今天天气很好我们去花园", "今天天气很好我们去公园"]) == 1


def test_commands_choose_the_protocol_from_the_references(elf, tmp_path):
    path, result = tmp_path / "s.jsonl", tmp_path / "bleu.json"
    path.write_text(json.dumps({"generated": CHANGED[0], "reference": CHINESE[0]}) + "\n")
    code, out, _ = elf("eval-bleu", path, "--json", result)
    assert code == 0 and "tok:zh" in out and json.loads(result.read_text())["chrf"] == pytest.approx(76.96, abs=0.01)
    code, _, err = elf("eval-bleu", path, "--tokenizer", "ja-mecap")
    assert code == 2 and "did you mean 'ja-mecab'" in err
    assert elf("eval-rouge", path, "--protocol", "sacrebleu")[0] == 2
    assert "protocol:unicode" in elf("eval-rouge", path)[1]


def test_a_tokenizer_that_is_not_installed_says_what_to_install(monkeypatch):
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    with pytest.raises(InputError, match=r"sacrebleu\[ja\]"):
        corpus_bleu(CHANGED, CHINESE, "auto", "ja-mecab")


def test_the_papers_tasks_keep_the_papers_protocol():
    """Whatever the references are, unless another is set; a metric that lacks it refuses it."""
    for sets, expected in (([], "paper"), (["protocol=unicode"], "unicode"), (["protocol=sacrebleu"], "sacrebleu")):
        config = resolve(task="de-en", sets=sets, environ={}).config
        assert protocol_of(metric("bleu"), config) == expected
        assert protocol_of(metric("mauve"), config) == "paper"
    assert protocol_of(metric("rouge"), resolve(sets=["protocol=auto"], environ={}).config) == "auto"
    with pytest.raises(InputError, match="rouge is scored by auto or paper or unicode"):
        protocol_of(metric("rouge"), config)
