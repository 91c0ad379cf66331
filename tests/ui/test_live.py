"""The live view of training and the progress bar: what they show, and that they fit the terminal."""

import io

import pytest
from rich.console import Console

from elfcli.ui import live, progress
from elfcli.ui.live import MAX_WIDTH, SPARE, spark

ROWS = [{"step": step, "loss": 3 / step, "denoise_loss": 2 / step, "decode_loss": 9 / step, "grad_norm": 1.5,
         "learning_rate": 0.00123, "tokens_per_second": 123456.0} for step in (1, 2, 5, 10, 20, 50, 100)]  # fmt: skip


class Clock:
    """Seconds that the displays read."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def terminal(monkeypatch):
    """(console, its file, its clock) of a terminal of 80 columns."""
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, force_terminal=True, width=80, soft_wrap=True, highlight=False, color_system=None,
                      get_time=clock)  # fmt: skip
    for module in (progress, live):
        monkeypatch.setattr(module, "console", console)
    return console, file, clock


def test_a_curve_of_one_line():
    assert spark([0, 1, 2, 3], 4) == "▁▃▆█" and spark([2, 2, 2], 9) == "▁▁▁"
    assert spark(range(100), 5) == "▁▃▅▆█" and spark([1, None, float("nan")], 5) == ""


def run_at(done: int, clock: Clock) -> live.Run:
    run = live.Run("train", 1_234_567, 100, 1000.0, ROWS)
    clock.now = 40.0  # compilation, which does not count
    run.update(101, "", row=ROWS[-1])
    clock.now = 100.0
    run.update(done, "", held_out={"val_denoise_loss": 0.4, "val_decode_loss": 0.3}, saved=100, sample="a " * 99)
    run.update(done, "", waiting=0.031, memory=1.26e9, sample=None)
    return run


def shown(terminal, run: live.Run, width: int) -> list[str]:
    console, file, _ = terminal
    console.width = width
    start = file.tell()
    console.print(run)
    return file.getvalue()[start:].splitlines()


def test_the_view_fits_the_terminal_and_shows_all(terminal):
    run = run_at(700_101, terminal[2])
    lines = shown(terminal, run, 80)
    text = "\n".join(lines)
    for part in ("700101/1234567", "0:01:40", "0:00:46 left", "epoch 700.10", "denoise", "held-out denoise",
                 "learning rate 0.00123", "gradient norm 1.5", "123,456 tokens/s", "waiting for data 3%",
                 "memory 1.3 GB", "saved step 100, 0:00 ago", "last sample: a a", "█", "━"):  # fmt: skip
        assert part in text, part
    for width in (30, 80, 200):
        assert max(map(len, shown(terminal, run, width))) <= min(width - SPARE, MAX_WIDTH)


def test_a_view_without_figures(terminal):
    lines = shown(terminal, live.Run("train", 10, 0, 2.5, []), 80)
    assert "0/10" in lines[0] and "-:--:-- left" in lines[0]


def test_the_last_figures_and_the_time_stay(terminal):
    with live.running("train", 7, 0, 2.0, []) as update:
        update(1, "plain text")
        update(7, "", row=ROWS[-1])
    output = terminal[1].getvalue()
    end = output[output.rindex("7/7") :]
    assert "0.03" in end and "train: steps 0 to 7 of 7 in 0:00" in end and "plain text" not in output


def test_the_progress_bar_shows_its_times_and_detail(terminal):
    clock = terminal[2]
    with progress.progress("sample", 250) as update:
        update(10)
        clock.now = 11.0
        update(120, "some [detail] that is longer than the terminal is wide, which is why it is truncated")
    line = terminal[1].getvalue()
    assert "120/250 0:00:11 elapsed, 0:00:13 left  some [detail]" in line and "truncated" not in line


def test_without_a_terminal_there_are_plain_lines(capsys):
    with live.running("train", 3, 0, 2.0, []) as update:
        update(1, "loss 1", row=ROWS[-1])
        update(3, "loss 0.5", row=ROWS[-1])
        update(3, saved=3)
        update(3, held_out={"val_denoise_loss": 0.4}, sample="text")
    err = capsys.readouterr().err
    assert err == "train 3/3, 0:00 left  loss 0.5\n"
