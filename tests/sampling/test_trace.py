"""The denoising trace: it changes no sample, and its page shows what was recorded, also in a browser."""

import importlib.util
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny_run import tiny_run

from elfcli.sampling.generate import Options, sample_rows
from elfcli.sampling.model import load_model
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import sources_of
from elfcli.sampling.trace import Trace, page_data, recorded_steps, traced
from elfcli.ui.page import page

HOSTILE = "</script><script>document.title='broken'</script><b>&amp;"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_recorded_steps_are_even_and_hold_both_ends():
    assert recorded_steps(3) == [0, 1, 2, 3]
    marks = recorded_steps(100)
    assert (marks[0], marks[-1], len(marks)) == (0, 100, 33) and set(np.diff(marks)) == {3, 4}


def test_settled_is_the_first_time_from_which_a_token_stays():
    rows = [[("a", 9), ("x", 9)], [("a", 9), ("b", 9)], [("a", 9), ("c", 9)], [("a", 9), ("b", 9), ("d", 9)]]
    assert Trace({}, [0, 0.3, 0.6, 1], rows).settled() == [0, 3, 3]


@pytest.fixture(scope="module")
def model():
    return load_model(str(tiny_run()))


@pytest.mark.parametrize(
    "setting",
    [
        SamplingSetting("ode", 5, 1.5),
        SamplingSetting("sde", 40, 1.0, 1.0, "uniform", 0.7),
        SamplingSetting("refine", 3, resample_noise=True),
    ],
    ids=lambda one: one.name,
)
def test_a_trace_changes_no_sample(model, setting):
    sources, options = sources_of(model, model.config.data.data_path, 7), Options(3, batch_size=4)
    plain = sample_rows(model, sources, setting, options)
    seen = []
    traces = traced(model, sources, setting, options, lambda now, done: seen.append(done))
    assert [trace.row for trace in traces] == plain
    assert any(row["generated"] for row in plain), "the comparison can fail"
    assert seen == [0] * (records := len(traces[0].times)) + [4] * (records + 1) + [7]
    for trace in traces:
        assert trace.times[0] == 0 and trace.times[-1] == 1 and trace.times == sorted(trace.times)
        assert len(trace.rows) == records == min(setting.num_sampling_steps, 32) + 1
        text = "".join(piece for piece, _ in trace.rows[-1]).strip()
        assert text == trace.row["generated"].strip() and all(0 <= sure <= 100 for row in trace.rows for _, sure in row)


def hostile_data() -> dict:
    rows = [[["x", 10]], [[HOSTILE, 90], [" two", 40]], [[HOSTILE, 99], [" three", 80]]]
    traces = [
        Trace({"id": 0, "input": HOSTILE, "generated": "g"}, [0.0, 0.5, 1.0], [[tuple(t) for t in row] for row in rows])
    ]

    class Named:
        name, step = HOSTILE, 7

    return page_data(Named, SamplingSetting(), traces)


def hostile_page() -> str:
    return page("trace.html", hostile_data())


def test_the_page_is_one_file_that_no_text_can_break():
    text = hostile_page()
    assert text.count("</script>") == 2 and "broken'" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert data["samples"][0]["input"] == HOSTILE and data["samples"][0]["settled"] == [1, 2]
    assert not re.search(r"https?://|@import|url\(|src=", text), "nothing is fetched"


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium (Debian: apt install chromium)")
def test_the_page_in_a_browser(tmp_path):
    file = tmp_path / "trace.html"
    file.write_text(hostile_page(), encoding="utf-8")
    middle, end = dom(tmp_path, f"{file.as_uri()}#t=0.5&numbers=1"), dom(tmp_path, f"{file.as_uri()}#colour=sure")
    assert "t = 0.50" in middle and "1 of 2 tokens settled" in middle and "<title>elf: denoising</title>" in middle
    assert 'class="open" title="not settled, confidence 40%"> two<sup>?</sup>' in middle
    assert "2 of 2 tokens settled" in end and "settled at t = 1.00, confidence 80%" in end
    assert "font-weight: 700" in end, "confidence is shown by weight"


def dom(folder: Path, address: str) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={folder}/profile", "--virtual-time-budget=2000", "--dump-dom"]  # fmt: skip
    return subprocess.run([BROWSER, *flags, address], capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_command_writes_the_page_and_refuses_other_endings(elf, tmp_path):
    samples, trace = tmp_path / "s.jsonl", tmp_path / "t.html"
    options = ["--checkpoint", tiny_run(), "--data", tiny_run().parent / "data", "-n", 2, "--steps", 2]
    code, _, err = elf("sample", *options, "-o", samples, "--trace", trace, "--watch")
    assert code == 0 and f"trace: {trace}" in err
    assert '"generated"' in trace.read_text(encoding="utf-8") and len(samples.read_text().splitlines()) == 2
    for file, fix in ((trace, "--trace"), (tmp_path / "t.png", ".html")):
        code, _, err = elf("sample", *options, "--trace", file)
        assert code == 2 and fix in err and len(err.splitlines()) == 1


def test_free_texts_have_a_trace_and_no_source(elf, tmp_path):
    samples, trace = tmp_path / "s.jsonl", tmp_path / "t.html"
    options = ["--checkpoint", tiny_run(), "-s", "max_input_length=0", "-n", 2, "--steps", 2]
    code, _, err = elf("sample", *options, "-o", samples, "--trace", trace)
    assert code == 0, err
    data = json.loads(re.search(r'id="data">(.*?)</script>', trace.read_text(encoding="utf-8"), re.S)[1])
    generated = [json.loads(line)["generated"] for line in samples.read_text(encoding="utf-8").splitlines()]
    assert [sample["generated"] for sample in data["samples"]] == generated
    for sample in data["samples"]:
        assert not {"input", "reference"} & sample.keys() and len(sample["rows"]) == len(sample["times"]) == 3


def test_a_moving_picture_needs_the_extra(elf, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "PIL" else find(name, *more))
    code, _, err = elf("sample", "--checkpoint", "never opened", "--trace", tmp_path / "t.gif")
    assert code == 2 and "pip install 'elfcli[plots]'" in err


def test_a_moving_picture_is_small_and_moves():
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    from elfcli.ui.gif import FRAMES, gif

    content = gif(hostile_data())
    with image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == FRAMES and picture.size[0] == 760 and len(content) < 1_000_000
