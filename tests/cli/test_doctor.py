"""`elf doctor` as a user sees it: the table, the JSON that others read, and bad input."""

import json

import pytest
from tiny_run import tiny_run


def test_table_and_json(elf, tmp_path):
    run, file = tiny_run(), tmp_path / "doctor.json"
    code, out, err = elf("doctor", run, "-n", 8, "--json", file)
    assert code == 0, err
    written = json.loads(file.read_text())
    assert written.keys() == {"checks", "first"}
    assert all(row.keys() == {"check", "value", "expected", "verdict", "advice"} for row in written["checks"])
    verdicts = {row["check"]: row["verdict"] for row in written["checks"]}
    assert verdicts["data.largest_id"] == verdicts["data.same_tokenizer"] == verdicts["latents.std"] == "ok"
    assert verdicts["denoise.t0.1"] == "fail", "three steps teach nothing"
    assert {
        "decoder.clean",
        "recovery.t0.9",
        "learning_rate",
        "steps",
        "ema.error",
        "sampling.words",
    } <= verdicts.keys()
    lines = out.splitlines()
    assert lines[-1] == f"first: {written['first']}"
    table = [line.split()[:2] for line in lines[1 : len(verdicts) + 1]]
    assert table == [[verdict, name.split()[0]] for name, verdict in verdicts.items()]

    before = file.read_text()
    code, out, err = elf("doctor", run, "--json", file)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--overwrite" in err and file.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "gone"),
        (["RUN", "--data", "gone"], "gone"),
        (["RUN", "--at-step", "77"], "no checkpoint of step 77"),
        (["RUN", "-n", "0"], "-n"),
        (["RUN", "-s", "latent_sd=1"], "latent_std"),
        (["RUN", "--sed", "1"], "--seed"),
    ],
)
def test_bad_input_is_one_line(elf, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = elf("doctor", *(str(tiny_run()) if word == "RUN" else word for word in arguments))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(errors)) == (2, "", 1) and said in errors[0] and "Traceback" not in err
