"""Verdicts from figures: each fault is found, and a healthy model's figures pass."""

from dataclasses import replace

import numpy as np
import pytest

from elfcli.diagnosis import checks
from elfcli.diagnosis.checks import Check, History

FALLING = [1.0 - 0.9 * min(i / 20, 1) for i in range(40)]
RUN = History(
    lr=0.012, update=0.012, losses=FALLING, fresh=True, spikes=0, skipped=0, done=400, planned=400, decay=0.98
)
SOME = {"a": 990, "b": 10}
GOOD = {"empty": 0.0, "degenerate": 0.0, "duplicate": 0.0, "memorised": 0.0, "words": 8.0}


def network(clean=1.0, error=0.02, accuracy=0.98):
    """Rows of a network with this decoder, denoise error and recovery, between a mean error of 1 and a lookup's."""
    return [
        *checks.decoder(clean, 0.97 * clean, 0.98),
        *(checks.denoise(t, error, 1.0, 1.5 if t < 0.5 else 0.0) for t in (0.1, 0.9)),
        *(checks.recovery(t, accuracy, 1.0 if t else 0.05, paired=True) for t in (0.9, 0.0)),
    ]


def diagnosis(
    lengths=(5, 8),
    known=None,
    std=1.0,
    run=RUN,
    learned=True,
    net=None,
    errors=(0.02, 0.021),
    texts=GOOD,
    read=(0.2, 0.97),
    counts=SOME,
):
    """The rows of a whole model, by default a healthy one. read: through the noise of both branches. counts: pieces."""
    too_often = checks.pieces(counts, {"a": 9990, "b": 10})
    pieces = {"a": 0, "b": 1}
    return [
        checks.ids(99, 100),
        checks.same_vocabulary(pieces, pieces if known is None else known),
        checks.cut("sources", np.array(lengths), 12, "max_input_length", 0),
        checks.padding(np.array(lengths), 12),
        *checks.latents(0.0, std, (0.0, 1.0)),
        checks.denoiser_noise(read[0], 2.0, 64, harmful=too_often.verdict != "ok"),
        checks.decoder_noise(read[1], 5.0, 64, (15.0, 8.0)),
        *(network() if net is None else net),
        checks.learning_rate(run),
        checks.steps(run, learned),
        *checks.average(run.decay, run.done, errors),
        *checks.texts(texts, GOOD),
        too_often,
        *checks.sampling_comparison("a", {"a": (0.0, 90.0), "b": (0.0, 91.0)}),
    ]


UNTRAINED = network(clean=0.1, error=0.97, accuracy=0.0)
FAULTS = {
    "vocabulary": (dict(known={"a": 1, "b": 0}, net=UNTRAINED, learned=False), "data.same_tokenizer: ", "tokenizer"),
    "sources cut": (dict(lengths=(5, 20, 21, 30)), "data.sources_cut: ", "--set max_input_length=32"),
    "latent std": (dict(std=0.2, net=UNTRAINED, learned=False), "latents.std: ", "--set latent_std=0.2"),
    "denoiser's noise": (dict(read=(0.01, 0.97), counts={"b": 200}), "noise.denoiser: ", "denoiser_noise_scale=0.71"),
    "decoder's noise": (dict(read=(0.2, 0.5)), "noise.decoder: ", "--set decoder_noise_scale=1"),
    "pieces": (dict(counts={"a": 800, "b": 200}), "sampling.pieces: ", "see noise above"),
    "decoder": (dict(net=network(clean=0.3)), "decoder.clean: ", "--set decoder_prob=0.2"),
    "lr too high": (
        dict(run=replace(RUN, lr=1.2, update=1.2, losses=[1.0, 0.7, *[2.0] * 38]), net=UNTRAINED, learned=False),
        "learning_rate: too high", "--set lr=0.005",
    ),
    "lr too low": (
        dict(run=replace(RUN, lr=1e-5, update=1e-5, losses=[1 - i / 400 for i in range(40)]), net=UNTRAINED,
             learned=False), "learning_rate: too low", "--set lr=0.005",
    ),
    "too few steps": (
        dict(run=replace(RUN, losses=FALLING[:12], done=12, planned=12, decay=0.5), net=UNTRAINED, learned=False),
        "steps: train longer", "--set steps=24",
    ),
    "stopped": (dict(run=replace(RUN, planned=4000), net=UNTRAINED, learned=False), "steps: ", "elf resume"),
    "EMA": (dict(run=replace(RUN, decay=0.9999), errors=(0.02, 0.9)), "ema.initial_share: ", "--set ema_decay=0.975"),
    "sampling": (dict(texts=GOOD | {"degenerate": 0.7}), "sampling.degenerate: ", "--steps"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_first_with_the_setting_to_change(fault):
    figures, begins, contains = FAULTS[fault]
    rows = diagnosis(**figures)
    advice = checks.first_advice(rows)
    assert advice.startswith(begins) and contains in advice
    named = next(row for row in rows if advice == f"{row.check}: {row.advice}")
    assert named.verdict == "fail"


def test_a_healthy_model_passes():
    rows = diagnosis()
    assert {row.verdict for row in rows} == {"ok"}
    assert checks.first_advice(rows).startswith("nothing") and not any(row.advice for row in rows)
    assert {row.check.split(".")[0] for row in rows} == set(checks.CHECK_ORDER)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        (dict(losses=[0.5] * 40), "fail"),  # does not fall at all
        (dict(losses=[0.5] * 40, fresh=False), "ok"),  # which is fine after init_from
        (dict(skipped=10), "fail"),
        (dict(losses=[None] * 40), "fail"),  # no step was finite
        (dict(losses=[*FALLING[:20], *[0.013, 0.02] * 10]), "ok"),  # noise at the end of a good curve
        (dict(losses=[*FALLING[:20], *[0.4] * 20]), "fail"),  # rises again
        (dict(spikes=9), "warn"),
        (dict(losses=[]), "ok"),
    ],
)
def test_learning_rate_from_the_log(changed, verdict):
    row = checks.learning_rate(replace(RUN, **changed))
    assert row.verdict == verdict and bool(row.advice) == (verdict != "ok")


def test_figures_that_are_not_finite_fail():
    nan = float("nan")
    rows = [*checks.decoder(nan, nan, 0.9), checks.denoise(0.5, nan, 1.0, 1.0), *checks.average(0.98, 400, (0.1, nan))]
    bad = [row for row in rows if row.check != "ema.initial_share"]
    assert all((row.verdict, row.value) == ("fail", None) for row in bad)


def test_ids_vocabulary_of_the_encoder_and_free_texts():
    assert checks.ids(100, 100).verdict == "fail"
    assert checks.encoder_vocabulary(32100, 32128, "t5").verdict == "ok"
    assert checks.encoder_vocabulary(4000, 32128, "t5").verdict == "fail"
    assert checks.recovery(0.0, 0.0, 0.05, paired=False).verdict == "ok"
    assert checks.recovery(0.9, 0.0, 1.0, paired=False).verdict == "fail"


def test_much_noise_is_only_a_warning_where_samples_are_sound():
    assert checks.denoiser_noise(0.01, 2.0, 64, harmful=False).verdict == "warn"
    worst = checks.pieces({"a": 800, "b": 200}, {"a": 9990, "b": 10})
    assert worst.value == "b x200 (200)"
    assert checks.pieces({"a": 996, "b": 4}, {"a": 10**6}).verdict == "ok", "rarer pieces are too often by chance"


def test_the_better_sampling_setting_is_named():
    rows = checks.sampling_comparison("--steps 8", {"--steps 8": (0.1, 50.0), "--steps 64": (0.0, 60.0)})
    assert [row.verdict for row in rows] == ["warn", "ok"] and "--steps 64" in rows[0].advice
    assert checks.sampling_comparison("a", {"a": (0.4, None), "b": (0.0, None)})[0].verdict == "warn"


def test_the_run_is_named():
    assert checks.named([Check("steps", 1.0, "", "fail", "elf resume RUN")], "runs/a")[0].advice == "elf resume runs/a"
