"""Every golden, by the same runner as `python tests/goldens.py`, one test per kind of case."""

import jax
import pytest
from goldens import KINDS, Goldens


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_golden(shared, kind):
    rows = list(getattr(Goldens(shared / "goldens"), kind)())
    assert rows, f"no golden of kind {kind}"
    assert not [row for row in rows if not row.holds]


def test_a_wrong_figure_is_noticed(shared):
    """The runner compares with the goldens, not with itself."""
    goldens = Goldens(shared / "goldens")
    goldens.config["latent_mean"] += 1e-3
    rows = list(goldens.objective_case("objective_plain", load_case(shared, "objective_plain")))
    assert any(not row.holds for row in rows)


def load_case(shared, name):
    from goldens import load

    return load(shared / "goldens" / f"{name}.npz")
