"""Every golden, by the same runner as `python tests/goldens.py`, one test per kind of case and folder."""

import jax
import pytest
from goldens import KINDS, Goldens, load
from helpers import GOLDENS, SHARED

FOLDERS = {"golden": GOLDENS, "larger-golden": SHARED / "goldens"}


@pytest.fixture(autouse=True, scope="module")
def as_outside_of_tests():
    """In full precision, and compiled as for users; other tests skip most of the compiler's work (conftest.py)."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    with jax.default_matmul_precision("highest"):
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOLDERS)
def test_golden(name, kind):
    if not FOLDERS[name].is_dir():
        pytest.skip("the larger set of goldens is not beside the checkout")
    if (name, kind) == ("golden", "distillation"):
        pytest.skip("two networks are too large for the small set")
    rows = list(getattr(Goldens(FOLDERS[name]), kind)())
    assert rows, f"no golden of kind {kind}"
    assert not [row for row in rows if not row.holds]


def test_a_wrong_golden_is_noticed():
    """The runner compares with the goldens, not with itself."""
    goldens = Goldens(GOLDENS)
    goldens.config["latent_mean"] += 1e-3
    rows = list(goldens.objective_case("objective_uncond", load(GOLDENS / "objective_uncond.npz")))
    assert any(not row.holds for row in rows)
    stored = load(GOLDENS / "checkpoint_expected.npz")
    assert not [row for row in goldens.checkpoints() if not row.holds]
    goldens.stored = lambda: stored | {"sha256_params": "0" * 64}
    assert [row.what[:6] for row in goldens.checkpoints() if not row.holds] == ["params"] * 2
