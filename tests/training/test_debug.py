"""One step without compilation: what is told, and where a NaN was made."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import SETTINGS, tiny_run

from elfcli.config.resolve import resolve
from elfcli.errors import ElfError
from elfcli.training.debug import infinite, rows_of
from elfcli.training.start import try_step


def test_stacked_blocks_have_a_norm_per_layer():
    params = {"blocks": {"w": np.ones((3, 2, 2))}, "head": np.ones((4, 4))}
    grads = {"blocks": {"w": np.arange(3.0)[:, None, None] * np.ones((3, 2, 2))}, "head": np.zeros((4, 4))}
    assert rows_of(params, grads) == [
        ("blocks/w", "(3, 2, 2)", "2.00e+00 2.00e+00 2.00e+00", "0.00e+00 2.00e+00 4.00e+00"),
        ("head", "(4, 4)", "4.00e+00", "0.00e+00"),
    ]


def test_infinities_are_named():
    assert infinite({"loss": np.inf, "blocks": {"w": np.array([1.0, -np.inf])}, "ok": np.ones(2)}) == [
        "blocks/w",
        "loss",
    ]


@pytest.mark.slow  # half a minute: nothing is compiled as a whole
def test_a_step_is_told_and_a_nan_is_located(monkeypatch):
    data = {"data_path": str(tiny_run().parent / "data")}
    resolved = resolve(task="toy-de-en", sets=SETTINGS, flags=data, environ={})
    lines = try_step(resolved)
    assert lines[0].startswith("8 examples: input_ids (8, 16)") and any("blocks/attn/qkv/kernel" in x for x in lines)

    from elfcli.flow import objective

    monkeypatch.setattr(objective, "velocity", lambda x, z, t, t_eps: jnp.sqrt(-1.0 - x * x))
    with pytest.raises(ElfError, match=r"not finite: invalid value \(nan\) .* made in elfcli/flow/objective.py:\d+"):
        try_step(resolved)
