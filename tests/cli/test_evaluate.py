"""`elf eval-bleu`, `eval-rouge` and `eval-ppl` as a user sees them."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from gpt2_files import write_judge
from tiny_run import tiny_run

from elfcli.scoring import judge as judge_module

ROWS = [("the old man sleeps", "the old man sleeps"), ("a dog runs home", "The dog runs home"), ("", "no text")]


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [{"id": i, "generated": a, "reference": b} for i, (a, b) in enumerate(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def bare(tmp_path):
    """Samples as the reference writes them."""
    path = tmp_path / "bare.jsonl"
    path.write_text("".join(json.dumps({"id": i, "generated": a}) + "\n" for i, (a, _) in enumerate(ROWS)))
    return path


@pytest.mark.parametrize(("command", "names"), [("eval-bleu", ["BLEU"]), ("eval-rouge", ["ROUGE-1", "ROUGE-L"])])
def test_scores_go_to_stdout_and_to_the_file(elf, samples, tmp_path, command, names):
    result = tmp_path / "result.json"
    code, out, err = elf(command, samples, "--json", result)
    assert (code, err) == (0, "")
    written = json.loads(result.read_text())
    assert written["metric"] == command.removeprefix("eval-") and written["num_samples"] == 3
    assert all(name in out for name in names)
    assert f"{written['value']:.2f}" in out and written["signature"] in out

    before = result.read_text()
    code, out, err = elf(command, samples, "--json", result)
    assert (code, out) == (2, "") and "--overwrite" in err
    assert result.read_text() == before
    assert elf(command, samples, "--json", result, "--overwrite")[0] == 0


def test_scores_equal_those_of_the_scorers_own_command_lines(elf, tmp_path):
    words = ["the", "old", "man", "a", "big", "dog", "runs", "home", "sleeps", "Sees", "it", "."]
    rng = np.random.default_rng(0)
    real = [" ".join(rng.choice(words, rng.integers(4, 15))) for _ in range(60)]
    made = [" ".join(word if rng.random() < 0.8 else "it" for word in text.split()) for text in real]
    rows = [{"generated": a, "reference": b} for a, b in zip(made, real, strict=True)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, texts in (("made", made), ("real", real)):
        (tmp_path / name).write_text("".join(text + "\n" for text in texts))
    found = {}
    for metric in ("bleu", "rouge"):
        assert elf(f"eval-{metric}", tmp_path / "s.jsonl", "--json", tmp_path / metric)[0] == 0
        found[metric] = json.loads((tmp_path / metric).read_text())
        low, high = found[metric]["interval"]
        assert low < found[metric]["value"] < high and high - low < 15

    from rouge_score.io import compute_scores_and_write_to_csv
    from rouge_score.rouge_scorer import RougeScorer

    line = ["-m", "sacrebleu", tmp_path / "real", "-i", tmp_path / "made", "-lc", "-b", "-w", "8"]
    theirs = subprocess.run([sys.executable, *map(str, line)], capture_output=True, text=True, timeout=60)
    assert float(theirs.stdout) == pytest.approx(found["bleu"]["value"], abs=1e-8)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    compute_scores_and_write_to_csv(*(str(tmp_path / name) for name in ("real", "made", "rouge.csv")), scorer, None)
    with open(tmp_path / "rouge.csv") as file:
        lines = list(csv.DictReader(file))
    for kind in ("rouge1", "rouge2", "rougeL"):
        mean = 100 * np.mean([float(line[f"{kind}-F"]) for line in lines])
        assert found["rouge"][kind] == pytest.approx(mean, abs=1e-4)  # the file has six digits


@pytest.mark.parametrize("command", ["eval-bleu", "eval-rouge"])
def test_references_of_their_own(elf, samples, bare, tmp_path, command):
    code, out, err = elf(command, bare)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "bare.jsonl:1: no 'reference'" in err and "--references FILE" in err
    lines = tmp_path / "references.txt"
    lines.write_text("".join(b + "\n" for _, b in ROWS))
    assert elf(command, bare, "--references", lines) == elf(command, samples)


def test_ppl(elf, bare, tmp_path):
    judge, result = write_judge(tmp_path / "judge"), tmp_path / "ppl.json"
    code, out, err = elf("eval-ppl", bare, "--model", judge, "--json", result, "--batch-size", 2)
    assert code == 0
    assert "64 tokens" in err and "1 empty texts were skipped" in err
    written = json.loads(result.read_text())
    assert (written["metric"], written["num_samples"], written["num_skipped_empty"]) == ("ppl", 2, 1)
    assert f"{written['value']:,.2f}" in out and f"{written['entropy']:.2f}" in out and "entropy" in out
    again = tmp_path / "again.json"
    assert elf("eval-ppl", bare, "--model", judge, "--tokenizer", judge, "--max-length", 64, "--json", again)[0] == 0
    assert json.loads(again.read_text())["value"] == pytest.approx(written["value"], rel=1e-6)


def test_real_text_stands_beside_and_low_entropy_is_told(elf, samples, bare, tmp_path):
    judge, result = write_judge(tmp_path / "judge"), tmp_path / "ppl.json"
    code, out, err = elf("eval-ppl", samples, "--model", judge, "--json", result)
    assert code == 0 and "meaningless" not in err and out.count("real text") == 2
    written = json.loads(result.read_text())
    real = written["details"]["real"]
    assert f"{real['ppl']:,.2f}" in out and real["num_samples"] == 3 and written["interval"] is not None
    for part in ("judge:judge", "weights:", "dtype:float32", "window:64", "eos:", "clean_up:unknown", "samples:3"):
        assert part in written["signature"] and part in out
    long = tmp_path / "real.txt"
    long.write_text("a quick brown fox jumps over the lazy dog while seven wizards box\n" * 3)
    code, out, err = elf("eval-ppl", bare, "--model", judge, "--references", long)
    assert code == 0 and "real text" in out
    assert "warning: the entropy is" in err and "that of the real text is" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "no/such/folder"], "no such folder"),
        (["--max-length", "1"], "--max-length"),
        (["--batch-size", "0"], "--batch-size"),
        (["--modle", "x"], "--model"),
    ],
)
def test_ppl_refuses_in_one_line(elf, bare, arguments, said):
    code, out, err = elf("eval-ppl", bare, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_bleu_loads_no_accelerator_code(samples):
    """Scoring by BLEU is quick: it must not wait for jax."""
    code = "import sys; from elfcli.__main__ import main\ntry: main(sys.argv[1:])\nfinally: print('jax' in sys.modules)"
    command = [sys.executable, "-c", code, "eval-bleu", str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_the_judge_is_loaded_once_for_all_settings(elf, tmp_path, monkeypatch):
    judge, loaded, real = write_judge(tmp_path / "judge"), [], judge_module.load_judge_network
    monkeypatch.setattr(judge_module, "load_judge_network", lambda name: loaded.append(name) or real(name))
    data = ["--data", tiny_run().parent / "data", "-s", f"eval_ppl_model={judge}"]
    out = tmp_path / "swept"
    assert elf("sweep", tiny_run(), *data, "--steps", "2,3,4", "-n", 3, "--metrics", "ppl", "-o", out)[0] == 0
    assert loaded == [str(judge)]
    values = [json.loads(line)["scores"][0]["value"] for line in (out / "results.jsonl").read_text().splitlines()]
    again = tmp_path / "again.json"
    name = f"{json.loads((out / 'results.jsonl').read_text().splitlines()[2])['name']}.jsonl"
    assert elf("eval-ppl", out / name, "--model", judge, "--json", again)[0] == 0 and loaded == [str(judge)]
    assert json.loads(again.read_text())["value"] == pytest.approx(values[2], rel=1e-6)
    other = write_judge(tmp_path / "other", window=32)
    assert elf("eval-ppl", out / name, "--model", other)[0] == 0 and loaded == [str(judge), str(other)]


def test_sample_reads_a_table_and_names_its_output_by_it(elf, tmp_path, monkeypatch):
    run = shutil.copytree(tiny_run(), tmp_path / "run")
    (tmp_path / "held.csv").write_text("de,en\n" + "ein wort 1 und 2,one word 1 and 2\n" * 3)
    line = ["sample", "--checkpoint", run, "--input", tmp_path / "held.csv", "--source-key", "de", "--steps", 2]
    texts = [{"generated": ""}, {"generated": "the " * 9}]
    monkeypatch.setattr("elfcli.sampling.generate.outputs", lambda model, sources, *rest: texts[: len(sources.rows)])
    code, _, err = elf(*line, "--num-samples", 2, "--raw-weights")
    assert code == 0, err
    assert "of 2 texts 1 empty and 1 degenerate" in err
    (written,) = (run / "samples").glob("*-seed0-raw-held.jsonl")
    meta = json.loads(written.with_name(f"{written.name}.meta.json").read_text())
    assert (meta["made_by"]["weights"], meta["made_by"]["ema_horizon"], meta["split"]) == ("raw", None, "file held.csv")
    rows = [json.loads(text) for text in written.read_text().splitlines()]
    assert [row["input"] for row in rows] == ["ein wort 1 und 2"] * 2 and "reference" not in rows[0]
    assert elf("eval-bleu", written, "--references", tmp_path / "held.csv", "--reference-key", "en")[0] == 2
    (tmp_path / "held.csv").write_text("de,en\n" + "ein wort 1 und 2,one word 1 and 2\n" * 2)
    assert elf("eval-bleu", written, "--references", tmp_path / "held.csv", "--reference-key", "en")[0] == 0
