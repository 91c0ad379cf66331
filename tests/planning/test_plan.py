"""`elf plan`: loops counted by their trips, kernels by their work, and the figures printed."""

import json
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elfcli.cli.plan import described
from elfcli.config.resolve import resolve
from elfcli.config.schema import SamplingPreset
from elfcli.errors import ElfError
from elfcli.models.elf import ELF, ElfShape, abstract_params
from elfcli.models.layers import REMAT_POLICIES, graphdef_of
from elfcli.planning import slices
from elfcli.planning.hlo import Cost, Rates, counted_once, program_cost
from elfcli.planning.plan import over_memory, plan_rounds, plan_sampling, plan_stages, plan_training, timed
from elfcli.planning.slices import names

RATES = Rates(1e12, 1e11)
TINY = ["depth=2", "hidden_size=32", "num_heads=2", "bottleneck_dim=8", "batch_size=8", "max_length=16",
        "max_input_length=0", "encoder_model_name=embedding", "embedding_dim=8", "steps=100",
        "optimizer=adamw"]  # fmt: skip
FIELDS = {"flops_per_chip", "bytes_accessed_per_chip", "peak_bytes_per_chip", "chip_memory_bytes", "fits",
          "compile_seconds", "collective_bytes_per_chip", "step_seconds_estimate"}  # fmt: skip


def unrolled_scan(body, x, blocks, *xs, remat="none", unroll=1):
    """`scan_blocks` written out."""
    for i in range(jax.tree.leaves(blocks)[0].shape[0]):
        block, *rest = jax.tree.map(lambda a, i=i: a[i], (blocks, *xs))
        step = body if remat == "none" else jax.checkpoint(body, policy=REMAT_POLICIES[remat])
        x = step(block, x, *rest)
    return x


def test_a_loop_counts_as_often_as_it_runs():
    def looped(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=7)[0]

    def written_out(x, w):
        for _ in range(7):
            x = jnp.tanh(x @ w)
        return x

    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    loop, flat = (jax.jit(f).lower(x, x).compile() for f in (looped, written_out))
    assert loop.cost_analysis()["flops"] < 0.2 * flat.cost_analysis()["flops"], "XLA counts the body once"
    assert program_cost(loop, RATES).flops == pytest.approx(flat.cost_analysis()["flops"], rel=0.01)
    assert program_cost(flat, RATES).flops == pytest.approx(flat.cost_analysis()["flops"], rel=1e-6)


def test_a_loop_of_unknown_length_takes_the_number_given():
    def solve(x, count):
        return jax.lax.fori_loop(0, count, lambda i, x: x @ x, x)

    program = jax.jit(solve).lower(jax.ShapeDtypeStruct((32, 32), jnp.float32), jax.ShapeDtypeStruct((), int))
    compiled = program.compile()
    once, often = counted_once(compiled.as_text(), RATES, trips=10)
    assert often.flops == pytest.approx(10 * once.flops, rel=0.05)
    with pytest.raises(ElfError, match="loop"):
        counted_once(compiled.as_text(), RATES)


@pytest.mark.parametrize("remat", ["none", pytest.param("dots", marks=pytest.mark.slow)])
def test_scanned_and_unrolled_networks_count_alike(monkeypatch, remat):
    shape = ElfShape(latent_dim=8, vocab_size=50, depth=5, hidden_size=64, num_heads=2, bottleneck_dim=8, remat=remat)

    def count() -> float:
        def loss(params, x, t):
            model = nnx.merge(graphdef_of(ELF, shape), params)
            return model.denoise(model(x, t, t, t)).sum()

        x, t = jax.ShapeDtypeStruct((4, 64, 16), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.float32)
        return program_cost(jax.jit(jax.grad(loss)).lower(abstract_params(shape), x, t).compile(), RATES).flops

    scanned = count()
    monkeypatch.setattr("elfcli.models.layers.scan_blocks", unrolled_scan)
    assert scanned == pytest.approx(count(), rel=0.03)


def test_without_the_compilers_estimate_the_instructions_are_added_up():
    compiled = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
    without = SimpleNamespace(as_text=compiled.as_text, cost_analysis=lambda: {"optimal_seconds": -28.0})  # v6e
    assert program_cost(without, RATES).seconds == counted_once(compiled.as_text(), RATES)[1].seconds > 0


def test_costs_add_up():
    assert Cost(1, 2, 3, 4) + Cost(1, 1, 1, 1) * 2 == Cost(3, 4, 5, 6)


def test_the_compilers_refusal_is_read():
    refusal = "Ran out of memory on HBM, the total memory required for HLO temporaries (36.67G) exceeds available HBM"
    assert over_memory(refusal) == int(36.67 * 2**30)
    assert over_memory("something else") is None


def test_another_libtpu_than_that_of_jax_is_reported(monkeypatch):
    monkeypatch.setattr(slices, "requires", lambda name: ["numpy>=2", 'libtpu==0.0.42.*; extra == "tpu"'])
    warnings = {}
    for found in ("0.0.42.1", "0.0.52"):
        monkeypatch.setattr(slices, "version", lambda name, found=found: found)
        warnings[found] = slices.another_libtpu()
    assert warnings["0.0.42.1"] is None and "0.0.42.*" in warnings["0.0.52"]


def test_plan_prints_and_writes_the_figures(elf, tmp_path):
    sets = [word for setting in TINY for word in ("-s", setting)]
    code, out, err = elf("plan", *sets, "--json", tmp_path / "plan.json")
    assert code == 0, err
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found.keys() >= FIELDS
    assert found["fits"] and found["total_steps"] == 100 and found["flops_per_chip"] > 1e6
    assert "fits" in out and "100 steps" in out and found["time_measured"]
    assert found["chip_hours_estimate"] == pytest.approx(100 * found["step_seconds_estimate"] / 3600)
    code, _, err = elf("plan", *sets, "--json", tmp_path / "plan.json")
    assert code == 2 and "--overwrite" in err


def tiny_config():
    return resolve(sets=TINY, environ={}).config


def test_on_this_machine_the_compiled_step_itself_is_timed(monkeypatch):
    """The step donates its state: were it given the same one twice, the second execution would fail."""
    monkeypatch.setattr("elfcli.planning.plan.seconds_per_step", partial(counted, runs := []))
    found = plan_training(resolve(sets=[*TINY[:-2], "minutes=1"], environ={}).config, "local")
    assert found.time_measured and found.step_seconds_estimate == 0.25 and not found.notes[1:]
    assert (found.total_steps, found.chip_hours_estimate) == (240, 1 / 60), "as many as fit its minutes"
    assert runs == [1, 2, 3], "three optimiser steps, each on the state of the last one"


def counted(runs: list, run_step, **_) -> float:
    runs += [np.asarray(run_step()) for _ in range(3)]
    return 0.25


def test_sampling_is_timed_with_the_steps_of_its_setting(monkeypatch):
    """With another number of steps the loop would end at once, or never."""
    monkeypatch.setattr("elfcli.planning.plan.seconds_per_step", partial(counted, runs := []))
    config = tiny_config().model_copy(update={"sampling": (SamplingPreset(candidates=3),)})
    found = plan_sampling(config, "local", batch_size=4, num_samples=8)
    assert (found.step_seconds_estimate, found.total_steps) == (0.25, 6), "two batches, three candidates of each"
    assert found.chip_hours_estimate == pytest.approx(6 * 0.25 / 3600)
    assert runs[0].shape == (4, 16) and (runs[0] == runs[1]).all()


@pytest.mark.parametrize("plan", [plan_training, partial(plan_sampling, batch_size=4)], ids=["training", "sampling"])
def test_latents_that_the_run_would_measure_are_planned_for(monkeypatch, plan):
    """The machine is too small, so that the program is compiled and not run."""
    monkeypatch.setattr("elfcli.planning.chips.memory_of_device", lambda: 1000)
    measured = resolve(sets=[*TINY, "latent_mean=measure", "latent_std=measure"], environ={}).config
    assert plan(measured, "local").peak_bytes_per_chip > 1000


def test_what_would_take_too_long_is_not_timed():
    fields, (note,) = timed(None, None, guess=3600.0)
    assert fields == {} and "3,600 s" in note and "300 s" in note


def test_what_does_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr("elfcli.planning.chips.memory_of_device", lambda: 1000)
    monkeypatch.setattr("elfcli.planning.plan.seconds_per_step", None)
    found = plan_training(tiny_config(), "local")
    assert not found.fits and not found.time_measured and found.advice
    assert f"{found.step_seconds_estimate:.3g} s" in described(found)


def test_a_batch_that_was_chosen_is_divided_until_it_fits(monkeypatch):
    config = tiny_config()
    most = plan_training(config, "local").peak_bytes_per_chip - 1
    monkeypatch.setattr("elfcli.planning.chips.memory_of_device", lambda: most)
    monkeypatch.setattr("elfcli.planning.plan.timed", lambda *_: ({}, ()))
    found = plan_training(config, "local", may_divide=True)
    assert found.fits and found.batch_size < config.global_batch


def test_if_memory_runs_out_the_estimate_stays(monkeypatch):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("elfcli.planning.plan.seconds_per_step", exhausted)
    found = plan_training(tiny_config(), "local")
    assert not found.time_measured and found.step_seconds_estimate > 0
    assert "not timed" in found.notes[-1]


def test_rounds_count_the_teachers_passes(elf, tmp_path, monkeypatch):
    """Twice as many steps of the teacher, and the same student: counted once, the loop would not show."""
    monkeypatch.setattr("elfcli.planning.plan.timed", lambda *work: ({}, ()))  # covered by another test
    monkeypatch.setattr("elfcli.planning.plan.plan_stages", lambda *work: [])
    sets = [word for setting in [*TINY, "rounds=[4,2]", "round_steps=30"] for word in ("-s", setting)]
    code, out, err = elf("plan", "--distill", *sets, "--json", tmp_path / "plan.json")
    assert code == 0, err
    four, two = json.loads((tmp_path / "plan.json").read_text())
    assert (four["total_steps"], two["total_steps"]) == (30, 30)
    assert 1.4 < two["flops_per_chip"] / four["flops_per_chip"] < 1.8
    assert "2-step student, 32 passes" in out and "all rounds" in out and "mmd is not for this teacher" in out


def test_stages_are_planned_with_their_batch_and_their_mean_number_of_passes(monkeypatch):
    monkeypatch.setattr("elfcli.planning.plan.timed", lambda *work: ({}, ()))
    sets = [*TINY, "batch_size=512", "stage_steps=[40]"]
    found, *others = plan_stages(resolve(sets=sets, environ={}).config, "local")
    assert (found.batch_size, found.total_steps, others) == (80, 40, []) and found.flops_per_chip > 1e6
    assert found.program == "stage mmd, 1.5 bootstrap passes a step on average"


def test_a_round_has_no_minutes(monkeypatch):
    """Those of the settings are the teacher's; without round_steps a round is an epoch."""
    planned = []
    found = SimpleNamespace(program="")
    monkeypatch.setattr("elfcli.planning.plan.plan_training", lambda config, *rest: planned.append(config) or found)
    monkeypatch.setattr("elfcli.planning.plan.replace", lambda found, **values: found)
    plan_rounds(resolve(sets=[*TINY[:-2], "minutes=5", "rounds=[4,2]"], environ={}).config, "local")
    assert [(config.timed, config.training.epochs) for config in planned] == [(False, 1), (False, 1)]


def test_unknown_slices_are_refused_with_the_nearest(elf):
    code, _, err = elf("plan", "--topology", "v5p-65")
    assert code == 2
    assert "'v5p-64'" in err and len(err.splitlines()) == 1
    assert "v5e-256" in names() and "v5p-64" in names()


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_extra_is_named(elf):
    code, _, err = elf("plan", "--topology", "v5p-64")
    assert code == 2 and "elfcli[tpu]" in err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu: pip install 'elfcli[tpu]'")
class TestTpu:
    """Real compilations for TPU slices, minutes each."""

    def plan(self, elf, tmp_path, *arguments) -> dict:
        file = tmp_path / f"{abs(hash(arguments))}.json"
        code, _, err = elf("plan", *arguments, "--json", file)
        assert code == 0, err
        return json.loads(file.read_text())

    def test_elf_b_on_32_chips_costs_what_the_documentation_says(self, elf, tmp_path):
        found = self.plan(elf, tmp_path, "--task", "owt", "--model", "ELF-B", "--topology", "v5p-64")
        assert found["flops_per_chip"] == pytest.approx(13.66e12, rel=0.02)
        assert found["bytes_accessed_per_chip"] == pytest.approx(72.7e9, rel=0.03)
        assert found["step_seconds_estimate"] == pytest.approx(0.0508, rel=0.03)
        assert found["peak_bytes_per_chip"] == pytest.approx(7.07 * 2**30, rel=0.1)

    def test_fused_and_plain_attention_plan_alike(self, elf, tmp_path):
        small = ["--topology", "v5p-8", "--batch-size", "64", "-s", "depth=4", "-s", "attention=plain"]
        plain = self.plan(elf, tmp_path, *small)
        fused = self.plan(elf, tmp_path, *small[:-1], "attention=auto")
        assert fused["flops_per_chip"] == pytest.approx(plain["flops_per_chip"], rel=0.03)
