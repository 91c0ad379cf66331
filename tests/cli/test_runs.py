"""`elf runs` and `elf report`: what they say of runs, and what of damaged ones."""

import json
import re
import shutil
import subprocess

import pytest
from tiny_run import tiny_run

HOSTILE = "</script><script>document.title='broken'</script>"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in a setting, the second with samples, scores and a loss that is not a number."""
    folder = tmp_path_factory.mktemp("all") / "runs"
    _, second = (shutil.copytree(tiny_run(), folder / name) for name in ("first", "second"))
    config = (second / "config.toml").read_text()
    (second / "config.toml").write_text(config.replace("lr = 0.01 ", "lr = 0.02 "))
    with open(second / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "epoch": 1.0, "loss": NaN, "val_denoise_loss": 0.5}\n')
    (second / "samples").mkdir()
    for step in (20, 3):
        row = {"id": 0, "input": HOSTILE, "generated": f"at {step}"}
        (second / "samples" / f"training-step{step}.jsonl").write_text(json.dumps(row) + "\n")
    score = {"metric": "bleu", "value": 12.345, "interval": [10.0, 15.0], "num_samples": 9, "signature": "tok:13a"}
    (second / "eval" / "step3").mkdir(parents=True)
    (second / "eval" / "step3" / "results.jsonl").write_text(json.dumps({"name": "ode8", "scores": [score]}) + "\n")
    return folder


def test_runs_are_listed_with_what_differs(elf, runs, monkeypatch):
    code, out, err = elf("runs", runs)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "3 of 3" in out and re.search(r"runs/second +4 of 3 .* 0\.5 ", out), "held-out loss"
    assert lines[-1].split() == ["lr", *(["0.02", "0.01"] if "second" in lines[1] else ["0.01", "0.02"])]
    monkeypatch.chdir(runs.parent)
    assert elf("runs")[1].count(" of 3") == 2, "runs/ of the working folder"
    facts = json.loads(elf("runs", "runs/first", "--format", "json")[1])[0]
    assert facts["step"] == facts["steps"] == 3 and facts["settings"]["lr"] == 0.01 and facts["loss"] > 0


def test_what_is_no_run_or_is_damaged_is_said(elf, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = elf("runs")
    assert code == 2 and err.count("\n") == 1 and "elf train" in err
    assert "did you mean 'runs'" in elf("runs", runs.parent / "run")[2]
    assert "no run of `elf train`" in elf("runs", tmp_path)[2]
    broken = shutil.copytree(runs / "first", tmp_path / "broken")
    (broken / "metrics.jsonl").write_text("no\n{}\n")
    code, out, err = elf("runs", broken, runs / "first")
    assert code == 0 and "metrics.jsonl:1: damaged" in err and "first" in out
    code, _, err = elf("report", broken, "-o", tmp_path / "r.html")
    assert code == 2 and "damaged" in err and not (tmp_path / "r.html").exists()


def test_a_report_is_one_page_of_all_runs(elf, runs, tmp_path):
    page = tmp_path / "report.html"
    code, _, err = elf("report", runs, "-o", page)
    assert code == 0 and f"report of 2 runs: {page}" in err
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert data["differ"] == {"lr": ["0.01", "0.02"]} and [run["steps"] for run in data["runs"]] == [3, 3]
    assert data["scores"][0]["cells"][0] == ["BLEU", "12.35 [10.00, 15.00]"] and data["scores"][0]["of"] == "eval/step3"
    assert data["samples"][1]["texts"][0]["texts"] == [[3, "at 3"], [20, "at 20"]]
    assert [len(line) for line in data["curves"][0]["lines"]] == [3, 3], "a loss that is no number is left out"
    assert data["runs"][0]["starts"][0]["packages"].startswith("elfcli ")
    assert text.count("</script>") == 2 and not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    for more, why in ((["-o", page], "exists"), (["-o", "r.pdf"], ".html")):
        code, _, err = elf("report", runs, *more)
        assert code == 2 and why in err and len(err.splitlines()) == 1
    assert elf("report", runs / "first", "-o", page, "--overwrite")[0] == 0
    if BROWSER:
        shown = dom(tmp_path, page)
        assert "Settings set by hand" in shown and shown.count("<figure>") == 6 and "loss: " in shown


def dom(folder, page) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={folder}/profile", "--virtual-time-budget=2000", "--dump-dom"]  # fmt: skip
    return subprocess.run([BROWSER, *flags, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
