"""`elf eval-bleu`, `eval-rouge` and `eval-ppl` as a user sees them."""

import json
import shutil
import subprocess
import sys

import pytest
from gpt2_files import write_judge
from tiny_run import tiny_run

from elfcli.evaluation import perplexity

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
    assert "texts were cut at 64 tokens" in err and "1 empty texts were skipped" in err
    written = json.loads(result.read_text())
    assert (written["metric"], written["num_samples"], written["num_skipped_empty"]) == ("ppl", 2, 1)
    assert f"{written['value']:,.2f}" in out and f"{written['entropy']:.2f}" in out and "entropy" in out
    again = tmp_path / "again.json"
    assert elf("eval-ppl", bare, "--model", judge, "--tokenizer", judge, "--max-length", 64, "--json", again)[0] == 0
    assert json.loads(again.read_text())["value"] == pytest.approx(written["value"], rel=1e-6)


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
    judge, loaded, real = write_judge(tmp_path / "judge"), [], perplexity.load_gpt2
    monkeypatch.setattr(perplexity, "load_gpt2", lambda name: loaded.append(name) or real(name))
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
    monkeypatch.setattr(
        "elfcli.evaluation.evaluate.generate", lambda model, sources, *rest: ["", "the " * 9][: len(sources)]
    )
    code, _, err = elf(*line, "--num-samples", 2, "--raw-weights")
    assert code == 0, err
    assert "of 2 texts 1 empty and 1 degenerate" in err
    (written,) = (run / "samples").glob("*-seed0-raw-held.jsonl")
    rows = [json.loads(text) for text in written.read_text().splitlines()]
    assert [row["input"] for row in rows] == ["ein wort 1 und 2"] * 2 and "reference" not in rows[0]
    assert elf("eval-bleu", written, "--references", tmp_path / "held.csv", "--reference-key", "en")[0] == 2
    (tmp_path / "held.csv").write_text("de,en\n" + "ein wort 1 und 2,one word 1 and 2\n" * 2)
    assert elf("eval-bleu", written, "--references", tmp_path / "held.csv", "--reference-key", "en")[0] == 0
