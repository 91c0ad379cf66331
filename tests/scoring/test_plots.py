"""Plots of a sweep: files of each kind, errors, and intervals in the terminal."""

import sys

import pytest

from elfcli.errors import InputError
from elfcli.scoring.plots import check_plot, draw, label, strips


def result(steps: int, cfg: float, value: float | None) -> dict:
    setting = {"sampling_method": "ode", "num_sampling_steps": steps, "cfg": cfg, "self_cond_cfg_scale": 1.0,
               "time_schedule": "uniform", "sde_gamma": 0.0}  # fmt: skip
    interval = None if value is None else [value - 1, value + 3]
    bleu = {"metric": "bleu", "value": value, "interval": interval, "made_by": {"network_calls": steps + 1}}
    ppl = {"metric": "ppl", "value": 50.0, "entropy": 4.0, "details": {"real": {"ppl": 30.0, "entropy": 5.0}}}
    return {"setting": setting, "name": f"ode{steps}-<b>-cfg{cfg:g}", "scores": [bleu, ppl]}


RESULTS = [result(16, 1.5, 20.0), result(4, 1.0, 10.0), result(8, 1.0, None)]


def test_intervals_lie_on_one_scale_the_cheapest_first():
    cheap, dear, scale = strips(RESULTS)
    assert cheap.startswith("ode4") and dear.startswith("ode16") and "5 calls" in cheap
    strip = dear.rindex(" ") + 1
    assert len(cheap) < strip < dear.rindex("o") < len(dear), "9 to 13 ends before 19 to 23 begins"
    assert scale.split() == ["bleu", "9", "23"]
    assert strips(RESULTS[:1]) == []


def test_series_differ_in_one_field():
    assert label(RESULTS[0], "cfg") == "ode, uniform, 16 steps, w 1"
    assert label(RESULTS[0], "num_sampling_steps") == "ode, uniform, CFG 1.5, w 1"


def test_files(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    for name in ("p.png", "p.html"):
        check_plot(tmp_path / name)
        draw(RESULTS, tmp_path / name, "my <run>")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "p.html").read_text()
    assert "my &lt;run&gt;" in page and "ode4-&lt;b&gt;" in page and page.count("<svg") == 1 and "http://" not in (
        page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "p.png"]
    with pytest.raises(InputError, match=r"p\.gif.*\.png, \.svg, \.html"):
        check_plot(tmp_path / "p.gif")
    with pytest.raises(InputError, match=r"--plot .*q\.png"):
        draw([result(4, 1.0, None)], tmp_path / "q.png", "none")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'elfcli\[plots\]'"):
        check_plot(tmp_path / "p.png")
