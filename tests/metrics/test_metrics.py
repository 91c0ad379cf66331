"""Our metrics as `evaluate` loads them: the figures are those of the commands' functions, without a network."""

import pytest
from gpt2_files import write_judge

from elfcli import metrics
from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.judge import Judge
from elfcli.scoring.perplexity import perplexity
from elfcli.scoring.report import counted
from elfcli.scoring.rouge import rouge

TEXTS = ["the old man sleeps", "a dog runs home", "a dog runs home", "no no no no no no", ""]
REAL = ["The old man slept", "the dog runs home", "a cat", "yes", "one more"]


def test_they_are_loaded_combined_and_equal_what_the_commands_compute(evaluate, tmp_path):
    judge = str(write_judge(tmp_path / "judge"))
    load = {"gen_ppl": {"model": judge, "batch_size": 2}, "entropy": {"tokenizer": judge}}
    names = [name for name in metrics.NAMES if name != "mauve"]  # tests/evaluation/test_mauve.py
    found = {name: evaluate.load(metrics.folder(name), **load.get(name, {})) for name in names}
    bleu, ppl = corpus_bleu(TEXTS, REAL), perplexity(TEXTS, Judge(model=judge, batch_size=2))
    assert found["bleu"].compute(predictions=TEXTS, references=REAL)["bleu"] == bleu.bleu
    alone = found["gen_ppl"].compute(predictions=TEXTS)
    assert alone["ppl"] == pytest.approx(ppl.ppl) and alone["ppl_signature"] == ppl.signature
    assert found["entropy"].compute(predictions=TEXTS)["entropy"] == pytest.approx(alone["entropy"])

    several = evaluate.combine([found["bleu"], found["rouge"], found["degeneracy"], found["gen_ppl"]])
    together = several.compute(predictions=TEXTS, references=REAL)
    assert together["bleu"] == bleu.bleu and together["bleu_interval"] == bleu.as_dict()["interval"]
    assert together["rougeL"] == rouge(TEXTS, REAL).rougeL and "sacre" not in together["rouge_signature"]
    assert {name: together[name] for name in ("empty", "duplicate", "degenerate", "distinct_2")} == {
        name: counted(tuple(TEXTS))[name] for name in ("empty", "duplicate", "degenerate", "distinct_2")
    }
    assert together["ppl"] == pytest.approx(ppl.ppl)


def test_another_name_says_which_there_are():
    with pytest.raises(KeyError, match="bleu, rouge"):
        metrics.folder("blue")
