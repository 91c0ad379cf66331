"""The held-out loss against the figures that it consists of."""

import numpy as np
import pytest
from tiny_run import tiny_run

from elfcli.diagnosis import probe
from elfcli.diagnosis.held_out import HELD_OUT_TIMES, held_out, held_out_figures
from elfcli.sampling.model import load_model


@pytest.fixture(scope="module")
def model():
    run = tiny_run()
    return load_model(run, sets=[f"eval_data_path={run.parent / 'data'}"])


def test_figures_are_means_over_the_tokens_of_texts(model):
    slice_ = held_out(model)
    figures = held_out_figures(slice_, model.params)
    program, tried = slice_
    text = tried.text_BxS
    assert 0 < text.sum() < tried.valid_BxS.sum(), "sources and padding do not count"
    for t in (HELD_OUT_TIMES[0], HELD_OUT_TIMES[5]):
        _, x = probe.denoised(program, model.params, tried, np.float32(t))
        expected = ((np.asarray(x) - tried.x0_BxSxE)[text] ** 2).mean()
        assert figures[f"val_denoise_t{t:.2f}"] == pytest.approx(expected, rel=1e-4)
    clean, noised, _, _ = (np.asarray(a) for a in probe.reconstructed(program, model.params, tried))
    assert figures["val_clean_token_accuracy"] == pytest.approx((clean == tried.ids_BxS)[text].mean(), abs=1e-6)
    assert figures["val_token_accuracy"] == pytest.approx((noised == tried.ids_BxS)[text].mean(), abs=1e-6)
    assert 0 < figures["val_clean_decode_loss"] < 2 * np.log(model.shape.vocab_size)
    again = held_out_figures(held_out(model), model.params)
    assert again == figures, "neither the slice nor its noise change"


def test_without_a_validation_split_there_is_none():
    assert held_out(load_model(tiny_run())) is None


def test_other_weights_have_other_figures(model):
    import jax

    zero = jax.tree.map(lambda leaf: 0 * leaf, model.params)
    figures = held_out_figures(held_out(model), zero)
    # A network of zeros estimates 0 for every latent, and all tokens alike.
    x0 = held_out(model).tried
    assert figures["val_denoise_loss"] == pytest.approx((x0.x0_BxSxE[x0.text_BxS] ** 2).mean(), rel=1e-4)
    assert figures["val_decode_loss"] == pytest.approx(np.log(model.shape.vocab_size), rel=1e-4)


def test_figures_do_not_depend_on_the_number_of_devices(model, monkeypatch):
    """Seven devices would repeat three examples, so that each has as many as the others."""
    figures = held_out_figures(held_out(model), model.params)
    monkeypatch.setattr(probe, "round_up_to_devices", lambda count: -(-count // 7) * 7)
    slice_ = held_out(model)
    assert len(slice_.tried.ids_BxS) % 7 == 0 and held_out_figures(slice_, model.params) == pytest.approx(figures)
