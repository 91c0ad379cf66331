"""GPUs that are not there: names, the pricing of what cuBLAS, cuDNN and NCCL compute, and (slow, with JAX's plugin)
what XLA makes of the training step."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from elfcli.errors import InputError
from elfcli.planning import slices
from elfcli.planning.gpu_calls import collectives, group_size
from elfcli.planning.gpus import card_names, find_gpus, target_config
from elfcli.planning.hlo import Rates, counted_once, instruction_cost, parse

TEXT = Path(__file__).with_name("two_h100.hlo").read_text(encoding="utf-8")
"""A projection, attention with its gradient, a float32 product and a mean over two H100, as XLA compiled it."""
RATES = Rates(1e12, 1e11, 5e11, 2.5e11)
LOGITS = 2 * 2 * 128 * 128  # examples on a device, heads, queries, keys


@pytest.mark.parametrize(
    ("call", "flops", "seconds"),
    [
        ("%custom-call.3", 2 * 256 * 256 * 384, 2 * 256 * 256 * 384 / 1e12),
        ("%custom-call.4", 2 * 96 * 160 * 96, 2 * 96 * 160 * 96 / 5e11),  # float32
        ("%dot_product_attention_fwd.5", 4 * LOGITS * 64, 4 * LOGITS * 64 / 2.5e11),
        ("%dot_product_attention_bwd.8", 10 * LOGITS * 64, 10 * LOGITS * 64 / 2.5e11),
    ],
)
def test_library_calls_cost_what_their_shapes_say(call, flops, seconds):
    program = parse(TEXT)
    slow_memory_is_not_the_limit = Rates(RATES.flops, 1e18, RATES.float32, RATES.attention)
    instruction = program.computations[program.entry][call]
    cost = instruction_cost(program, program.entry, instruction, slow_memory_is_not_the_limit)
    assert (cost.flops, cost.seconds) == (flops, pytest.approx(seconds))


def test_bytes_of_calls_and_collectives():
    program = parse(TEXT)
    product = program.computations[program.entry]["%custom-call.3"]
    workspace_excluded = 2 * (256 * 256 + 256 * 384 + 256 * 384)
    assert instruction_cost(program, program.entry, product, RATES).bytes == workspace_excluded
    _, cost = counted_once(TEXT, RATES)
    assert cost.collective_bytes == 256 * 384 * 4, "two devices send each other half of it twice"
    assert "1 all-reduce; 1 asynchronous" in collectives(TEXT)
    groups = ("mesh['a'=2,'b'=4] {'a','b'}", "[2,4]<=[8]", "{{0,1,2},{3,4,5}}")
    assert [group_size(f", replica_groups={text}, x=1") for text in groups] == [8, 4, 3]


def test_names_of_gpus():
    assert find_gpus("a100-80x4").topology == "1x1x4" and find_gpus("h100x2x8").topology == "1x2x8"
    assert all(find_gpus(name).topology == "1x1x1" for name in card_names())
    assert find_gpus("rtx4090x2").card.name == "NVIDIA GeForce RTX 4090"
    assert find_gpus("h100x2x8").links < find_gpus("h100x8").links
    assert 70 < find_gpus("h100").memory / 2**30 < 79
    assert "core_count: 108" in target_config(find_gpus("a100-40").card)
    for name in ("h100x9", "h100x0", "h100x0x8", "v5p-8", "local", "assumed"):
        assert find_gpus(name) is None
    with pytest.raises(InputError, match=r"did you mean 'h100x8'.*rtx4090"):
        slices.check_name("h10x8")


def test_what_gpu_plans_need(monkeypatch):
    monkeypatch.setattr(slices, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'elfcli\[cuda13\]'"):
        slices.prepare_compiler("h100x2")
    monkeypatch.setattr(slices, "find_spec", lambda name: name == "jax_cuda12_plugin")
    monkeypatch.setattr(slices.os, "environ", {"XLA_FLAGS": "--xla_dump_to=x"})
    slices.prepare_compiler("h100x2")
    assert slices.os.environ["XLA_FLAGS"].startswith("--xla_dump_to=x --xla_gpu")


@pytest.mark.slow
@pytest.mark.skipif(not any(find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)), reason="JAX's CUDA plugin is missing")
@pytest.mark.parametrize("topology", ["h100", "h100x2"])
def test_the_step_on_h100_is_fused(tmp_path, topology):
    environment = os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    sets = ("batch_size=32", "max_length=256", "depth=3", "num_heads=5", "hidden_size=330")
    command = [sys.executable, "-m", "elfcli", "plan", "--task", "owt", "--model", "ELF-XS", "--topology", topology]
    done = subprocess.run(
        [*command, *(word for one in sets for word in ("-s", one))], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "fits" in done.stdout, done.stderr
    text = next(tmp_path.glob("*jit_train_step*gpu_after_optimizations.txt")).read_text(encoding="utf-8")
    calls = re.findall(r'custom_call_target="__cudnn\$fmha(\w+)"', text)
    assert calls.count("Softmax") == 2 * 3, "each block once without gradient and once with it, not again backward"
    assert calls.count("SoftmaxBackward") == 3 and calls.count("ScaleBiasSoftmax") == 1
    program = parse(text)
    products = [
        [instructions[name].shape for name in one.operands[:2]]
        for instructions in program.computations.values()
        for one in instructions.values()
        if 'custom_call_target="__cublas' in one.attributes
    ]
    unembedding = [factors for factors in products if any("3210" in shape for shape in factors)]
    assert len(unembedding) >= 3 and all(shape.startswith("bf16") for factors in unembedding for shape in factors)
