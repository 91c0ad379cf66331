"""Our metrics in `evaluate`: the figures are those of the commands' functions, without a network."""

import pytest
from gpt2_files import write_judge

from elfcli.scoring.bleu import corpus_bleu
from elfcli.scoring.hf_metrics import NAMES, hf_metric
from elfcli.scoring.judge import Judge
from elfcli.scoring.perplexity import perplexity
from elfcli.scoring.report import counted
from elfcli.scoring.rouge import rouge

TEXTS = ["the old man sleeps", "a dog runs home", "a dog runs home", "no no no no no no", ""]
REAL = ["The old man slept", "the dog runs home", "a cat", "yes", "one more"]


def test_they_are_combined_and_equal_what_the_commands_compute(evaluate, tmp_path):
    judge = str(write_judge(tmp_path / "judge"))
    options = {"ppl": {"model": judge, "batch_size": 2}}
    found = {name: hf_metric(name, **options.get(name, {})) for name in NAMES}
    bleu, ppl = corpus_bleu(TEXTS, REAL), perplexity(TEXTS, Judge(model=judge, batch_size=2))
    assert found["bleu"].compute(predictions=TEXTS, references=REAL)["bleu"] == bleu.bleu
    alone = found["ppl"].compute(predictions=TEXTS)
    assert alone["ppl"] == pytest.approx(ppl.ppl) and alone["ppl_signature"] == ppl.signature
    assert alone["entropy"] == pytest.approx(ppl.entropy)

    several = evaluate.combine([found["bleu"], found["rouge"], found["degeneracy"], found["ppl"]])
    together = several.compute(predictions=TEXTS, references=REAL)
    assert together["bleu"] == bleu.bleu and together["bleu_interval"] == bleu.as_dict()["interval"]
    assert together["rougeL"] == rouge(TEXTS, REAL).rougeL and "sacre" not in together["rouge_signature"]
    assert {name: together[name] for name in ("empty", "duplicate", "degenerate", "distinct_2")} == {
        name: counted(tuple(TEXTS))[name] for name in ("empty", "duplicate", "degenerate", "distinct_2")
    }
    assert together["ppl"] == pytest.approx(ppl.ppl)


def test_another_name_lists_the_metrics():
    with pytest.raises(KeyError, match="bleu, rouge"):
        hf_metric("blue")
