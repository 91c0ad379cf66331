"""Loss spikes are marked, nothing else is, and a resumed run marks the same lines."""

import math
import random

import numpy as np
import pytest

from elfcli.config.schema import Config
from elfcli.runs import folder as run
from elfcli.runs.state import TrainState
from elfcli.training.log import SPIKE_FROM, Log, layer_norms, usual_loss

STATE = TrainState(*[None] * len(TrainState._fields))


def write(folder, losses, start=0):
    """Logs one line per loss (None: every step was skipped), from `start` on; the steps marked in the file."""
    log = Log(Config(), 10.0, folder, np.full(1000, 1e-3), start)
    for loss in losses[start:]:
        log.done += 1
        figures = (0.0, 0) if loss is None else (loss, 1)
        names = ("loss", "denoise_loss", "decode_loss")
        totals = {name: figures for name in names} | {"skipped": (1 if loss is None else 0, 1)}
        log.write(STATE._replace(totals=totals))
    return [row["step"] for row in run.read_metrics(folder) if row.get("spike")]


def noisy(count: int) -> list[float | None]:
    draw = random.Random(3)
    return [3.0 * math.exp(-i / 40) + 1 + draw.gauss(0, 0.05) for i in range(count)]


def test_spikes_are_marked_and_told(tmp_path, capsys):
    losses = noisy(120)
    losses[30], losses[31], losses[77] = 9.0, None, 4.0
    assert write(tmp_path, losses) == [31, 78]
    assert "step 31: the loss jumped to 9 " in capsys.readouterr().err


def test_noise_falling_loss_and_the_first_lines_are_not_marked(tmp_path):
    assert write(tmp_path, [50.0, 0.1, 80.0, 2.0, 3.0, *noisy(300)]) == []


def test_a_loss_that_stays_up_is_soon_usual(tmp_path):
    marked = write(tmp_path, [1.0] * 30 + [5.0] * 30)
    assert marked[0] == 31 and 40 <= marked[-1] < 50


@pytest.mark.parametrize("stop", [25, 30, 31, 35])
def test_a_resumed_run_marks_the_same_lines(tmp_path, stop):
    losses = noisy(60)
    losses[29] = losses[30] = 8.0
    losses[20] = None
    whole = write(tmp_path, losses)
    assert whole == [30, 31]
    run.truncate_metrics(tmp_path, stop)
    assert write(tmp_path, losses, start=stop) == whole


def test_what_is_usual():
    assert usual_loss([1.0] * (SPIKE_FROM - 1) + [None, math.nan, math.inf]) is None
    assert usual_loss([2.0] * SPIKE_FROM) == pytest.approx(2.0 + 8 * 0.02)  # a spread of nothing is not believed
    assert usual_loss([1.0, 2.0, 3.0] * 5) == pytest.approx(2.0 + 8 * 1.0)


def test_norms_are_of_single_layers_and_of_their_distance_to_the_average():
    params = {
        "blocks": {"kernel": np.array([[3.0, 4.0], [0.0, 2.0]]), "bias": np.array([0.0, 1.0])},
        "head": np.ones(4),
    }
    ema = params | {"head": np.zeros(4)}
    norms = {name: float(norm) for name, norm in layer_norms(params, ema).items()}
    weights = {"weight_norm/blocks_0": 5.0, "weight_norm/blocks_1": 5**0.5, "weight_norm/head": 2.0}
    distances = {"ema_distance/blocks_0": 0.0, "ema_distance/blocks_1": 0.0, "ema_distance/head": 2.0}
    assert norms == pytest.approx(weights | distances)
