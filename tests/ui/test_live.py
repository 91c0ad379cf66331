"""The live view of training and the progress line: what they show, and that they fit 80 columns."""

import io

import pytest
from rich.console import Console

from elfcli.ui import live, progress
from elfcli.ui.spark import spark
from elfcli.ui.view import MAX_WIDTH, SPARE, Lines, View

ROWS = [{"step": step, "loss": 3 / step, "denoise_loss": 2 / step, "decode_loss": 9 / step, "grad_norm": 1.5,
         "learning_rate": 0.00123, "tokens_per_second": 123456.0} for step in (1, 2, 5, 10, 20, 50, 100)]  # fmt: skip


def test_a_curve_of_one_line():
    assert spark([0, 1, 2, 3], 4) == "▁▃▆█" and spark([2, 2, 2], 9) == "▁▁▁"
    assert spark(range(100), 5) == "▁▃▅▆█" and spark([1, None, float("nan")], 5) == ""


def run_at(done: int) -> live.Run:
    run = live.Run("train", 1_234_567, 100, 1000.0, ROWS)
    run.update(101, "", row=ROWS[-1])
    run.began -= 60
    run.update(done, "", held_out={"val_denoise_loss": 0.4, "val_decode_loss": 0.3}, saved=100, sample="a " * 99)
    run.update(done, "", waiting=0.031, memory=1.26e9, sample=None)
    return run


def test_the_view_fits_80_columns_and_says_all():
    lines = Lines(Console(width=80, file=io.StringIO()), run_at(700_101).lines).now()
    assert max(map(len, lines)) <= 80 - SPARE
    text = "\n".join(lines)
    for part in ("step 700,101 of 1,234,567", "epoch 700.10", "57%", "gone", "left", "denoise", "held-out denoise",
                 "learning rate 0.00123", "gradient norm 1.5", "123,456 tokens/s", "waiting for data 3%",
                 "memory 1.3 GB", "saved step 100, 0:00 ago", "last sample: a a", "█"):  # fmt: skip
        assert part in text, part
    assert "46 s" not in text and f"{progress.clock(60 / 700_000 * 534_466)} left" in text
    assert max(map(len, Lines(Console(width=30, file=io.StringIO()), run_at(200).lines).now())) <= 30 - SPARE
    assert max(map(len, Lines(Console(width=200, file=io.StringIO()), run_at(200).lines).now())) <= MAX_WIDTH


def test_a_view_without_figures_is_shown_too():
    lines = live.Run("train", 10, 0, 2.5, []).lines(77)
    assert "step 0 of 10" in lines[0] and "- left" in lines[0]


@pytest.fixture
def terminal(monkeypatch):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, soft_wrap=True, highlight=False)
    for module in (progress, live):
        monkeypatch.setattr(module, "console", console)
    return file


def test_the_last_figures_and_the_time_stay(terminal):
    with live.running("train", 7, 0, 2.0, []) as update:
        update(1, "plain text")
        update(7, "", row=ROWS[-1])
    shown = terminal.getvalue()
    end = shown[shown.rindex("step 7 of 7") :]
    assert "0.03" in end and "train: steps 0 to 7 of 7 in 0:00" in end and "plain text" not in shown


def test_a_narrowed_terminal_is_cleared_of_broken_lines():
    """After 79 columns became 40, one line of 70 lies on two rows: both are cleared."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=79)
    with View(console, lambda width: ["x" * 70, "y"]) as view:
        view.refresh()
        console.width = 40
        before = file.tell()
        view.refresh()
        assert file.getvalue()[before:].count("\x1b[1A") == 2, "three rows, of two lines"
        before = file.tell()
        view.refresh()
        assert file.getvalue()[before:].count("\x1b[1A") == 1


def test_the_progress_line_names_its_times(terminal):
    with progress.progress("sample", 250) as update:
        update(10)
        update(120, "some detail")
    assert "120/250, 0:00 gone, 0:00 left  some detail" in terminal.getvalue()


def test_elsewhere_there_are_plain_lines(capsys):
    with live.running("train", 3, 0, 2.0, []) as update:
        update(1, "loss 1", row=ROWS[-1])
        update(3, "loss 0.5", row=ROWS[-1])
        update(3, saved=3)
        update(3, held_out={"val_denoise_loss": 0.4}, sample="text")
    err = capsys.readouterr().err
    assert err == "train 3/3, 0:00 left  loss 0.5\n"
