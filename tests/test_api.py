"""The Python face: what commands do, with their options, and what a command prints in the log."""

import inspect
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tiny_run import tiny_run

import elfcli
from elfcli import api
from elfcli.cli import evaluate, resume, sample, tokenize, train

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
SOURCES = ["ein wort 3", "und 4"]


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, elfcli; dir(elfcli); print({'jax', 'transformers', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = elfcli.lod


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return shutil.copytree(tiny_run(), tmp_path_factory.mktemp("api") / "run")


def test_generate_gives_what_elf_sample_writes_and_says_it_in_the_log(elf, run, tmp_path, caplog, capsys):
    given, written = tmp_path / "in.txt", tmp_path / "out.jsonl"
    given.write_text("\n".join(SOURCES))
    flags = ["--steps", 3, "--sampler", "sde", "--gamma", 0.5, "--cfg", 1.5, "--seed", 7]
    code, _, err = elf("sample", "--checkpoint", run, "--input", given, "-o", written, *flags)
    assert code == 0, err
    capsys.readouterr()
    with caplog.at_level(logging.INFO, "elf"):
        model = elfcli.load(run)
        texts = model.generate(SOURCES, steps=3, sampler="sde", gamma=0.5, cfg=1.5, seed=7)
    assert texts == [json.loads(line)["generated"] for line in written.read_text().splitlines()]
    assert any(text != other for text, other in zip(texts, model.generate(SOURCES, steps=3, seed=8), strict=True))
    assert any("checkpoint of step 3" in record.message or "step 3" in record.message for record in caplog.records)
    assert capsys.readouterr() == ("", ""), "a library prints nothing"
    assert len(model.generate(data=tiny_run().parent / "data", num_samples=3, steps=1)) == 3
    for inputs, more, why in [
        ("one text", {}, "a list"),
        ([""], {}, r"inputs\[0\]"),
        ([], {}, "no texts"),
        (["a"], {"steps": 0}, "--steps 0"),
        (["a"], {"batch_size": 0}, "batch_size"),
        (["a"], {"sampler": "odd"}, "--sampler odd"),
    ]:
        with pytest.raises(elfcli.InputError, match=why):
            model.generate(inputs, **more)


def test_train_resume_evaluate_and_tokenize_are_the_commands(run, tmp_path, caplog, capsys):
    rows = [{"input": f"a {i % 7}", "output": f"b {i % 5}"} for i in range(32)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {"source_key": "input", "target_key": "output"}
    data = elfcli.tokenize(tmp_path / "data", input=tmp_path / "pairs.jsonl", train_tokenizer=14, **keys)
    assert data.splits["train"].examples == 32
    with caplog.at_level(logging.INFO, "elf"):
        went_on = elfcli.resume(run, sets={"steps": 4})
    assert went_on == run and any("of 4" in record.message for record in caplog.records)
    (result,) = elfcli.evaluate(
        run, data=data.output, num_samples=4, output=tmp_path / "eval", sets={"metrics": ["bleu"]}
    )[:1]
    assert result["scores"][0]["metric"] == "bleu" and "resampled" not in result
    assert capsys.readouterr() == ("", "")
    with pytest.raises(elfcli.InputError, match="unknown setting"):
        elfcli.train(data=data.output, output=tmp_path / "run", steps=1, sets={"lrr": 1})
    with pytest.raises(elfcli.InputError, match="not the text"):
        elfcli.train(sets="lr=1")


@pytest.mark.parametrize(
    ("function", "command", "left_out"),
    [
        (api.train, train.train, set()),
        (api.resume, resume.resume, set()),
        (api.evaluate, evaluate.evaluate, {"json", "named"}),
        (api.tokenize, tokenize.tokenize, {"max_length", "max_input_length"}),
        (api.load, sample.sample, {"steps", "sampler", "gamma", "cfg", "w", "time_schedule", "time_shift",
                                   "candidates", "resample_noise",
                                   "num_samples", "input", "source_key", "trace", "watch", "data", "seed",
                                   "batch_size", "output", "overwrite", "named", "separator", "quoting", "no_header",
                                   "encoding", "allow_unknown", "prompt", "template", "template_key"}),
    ],
)  # fmt: skip
def test_functions_take_the_options_of_the_commands(function, command, left_out):
    """left_out: options that say what to print or write, or that `Model.generate` takes."""
    processes = {"coordinator", "num_processes", "process_id", "join_timeout"}
    options = {name.strip("_").removesuffix("_file") for name in inspect.signature(command).parameters} - processes
    assert set(inspect.signature(function).parameters) == options - left_out
    assert typer  # commands are typer's
    for name in set(inspect.signature(function).parameters):
        assert name in function.__doc__, f"{function.__name__}: help() does not say what {name} is"


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("ELF_NUM_WORKERS", "0")  # processes that read ahead take long to start
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    printed = capsys.readouterr().out
    assert "125 pairs" in printed and " bleu " in printed and "no checkpoint of step 7" in printed
    assert len(names["texts"]) == 2 and [row["step"] for row in names["rows"] if "loss" in row][-1] == 30
    assert not any(cell.get("outputs") for cell in cells), "outputs are left out, so that they cannot be wrong"
