"""Everything to measure on the day an accelerator is there, in one command, beside the estimates of `elf plan`.

    python benchmarks/accelerator.py [--minutes 8] [--output accelerator] [--tiny]

Runs, each part in a process of its own and with its own share of the minutes: versions and card; the goldens on the
device; fused against plain attention for the head sizes of ELF-B, M and L; 60 steps of ELF-B at the largest batch that
fits, and beside plain attention; the ten longest kernels; sampling 64 texts of 1,024 tokens in 32 steps; a run that is
killed and resumed. Prints each result as it comes and writes FOLDER/results.json and FOLDER/results.md. Needs neither
network nor data: tokens and weights are random. --tiny (the default on a CPU): small sizes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Sizes:
    """What is measured. heads: (number, size) in attention. batches: of training, tried from the largest."""

    sets: tuple[str, ...]
    heads: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    plain_batches: tuple[int, ...]
    length: int
    steps: int
    texts: int
    sampling_steps: int


FULL = Sizes((), ((12, 64), (16, 66), (16, 80)), (192, 128, 96, 64, 32, 16), (32, 16), 1024, 60, 64, 32)
TINY = Sizes(("depth=2", "hidden_size=32", "num_heads=2", "bottleneck_dim=8", "encoder_model_name=embedding",
              "embedding_dim=8", "optimizer=adamw"), ((2, 16),), (4,), (2,), 32, 2, 2, 2)  # fmt: skip
Rows = Iterator[tuple[str, object]]


def versions(sizes: Sizes) -> Rows:
    import jax
    import jaxlib

    import elfcli

    device = jax.devices()[0]
    yield "elf, JAX, jaxlib, Python", [elfcli.__version__, jax.__version__, jaxlib.__version__, sys.version.split()[0]]
    yield "devices", [f"{len(jax.devices())} x {device.device_kind}", device.client.platform_version.split("\n")[0]]
    yield "compute capability", getattr(device, "compute_capability", None)
    yield "bytes that JAX may use", (device.memory_stats() or {}).get("bytes_limit")


def goldens(sizes: Sizes) -> Rows:
    """In float32 products: by default GPUs compute them in TF32, TPUs in bfloat16."""
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    command = [sys.executable, HERE.parent / "tests" / "goldens.py", HERE.parent / "tests" / "goldens"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines() or done.stderr.splitlines()[-1:]
    yield "goldens", lines[-1]
    for line in lines[:-1]:
        if "same" not in line and "holds" not in line:
            yield "golden", " ".join(line.split())


def seconds_of(run: Callable[[], object], count: int) -> float:
    """Median seconds of `count` executions after one more."""
    import jax

    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return median(times[1:])


def attention(sizes: Sizes) -> Rows:
    """Milliseconds and relative errors, against plain attention in float32, of both kernels in the device's type."""
    import jax
    import jax.numpy as jnp

    from elfcli.config.resolve import resolve
    from elfcli.models import layers
    from elfcli.models.build import arithmetic

    dtype, fused = arithmetic(resolve(environ={}).config)
    for count, size in sizes.heads:
        heads = jax.random.normal(jax.random.key(0), (3, 8, sizes.length + 12, count, size), dtype)

        def loss(qkv, kernel):
            out = layers.attention(qkv, kernel=kernel).astype(jnp.float32)
            return jnp.square(out).sum(), out

        def both(kernel, loss=loss):
            return jax.jit(jax.grad(partial(loss, kernel=kernel), has_aux=True))

        with jax.default_matmul_precision("highest"):
            exact = jax.device_get(both("plain")(heads.astype(jnp.float32)))
        for kernel in dict.fromkeys([fused, "plain"]):
            gradient, forward = both(kernel), jax.jit(partial(layers.attention, kernel=kernel))
            found = gradient(heads)
            differences = ((abs(a.astype(jnp.float32) - b), abs(b)) for a, b in zip(found, exact, strict=True))
            errors = [float(difference.max() / size.max()) for difference, size in differences]
            times = [1e3 * seconds_of(partial(run, heads), 10) for run in (forward, gradient)]
            text = f"{times[0]:.3g} and {times[1]:.3g} ms, errors {errors[1]:.1e} and {errors[0]:.1e}"
            yield f"{kernel}, forward and with gradient, 8 x {sizes.length + 12} tokens, {count} heads of {size}", text


def compiled_step(sizes: Sizes, batches: tuple[int, ...], *sets: str):
    """(settings, planned step, compiled step, its estimates) of the largest batch that fits."""
    import jax

    from elfcli.config.resolve import resolve
    from elfcli.planning.chips import find_machine
    from elfcli.planning.plan import compiled_figures
    from elfcli.planning.programs import training_step
    from elfcli.recipe.card import kept_bytes
    from elfcli.weights.published import VOCABULARY

    machine = find_machine("local")
    for batch in batches:
        found = [f"batch_size={batch * len(machine.devices)}", f"max_length={sizes.length}", *sizes.sets, *sets]
        config = resolve(task="owt", model="ELF-B", sets=found, environ={}).config
        if batch != batches[-1] and kept_bytes(config, batch) > 0.9 * machine.memory:
            continue  # not worth compiling
        planned = training_step(config, machine, VOCABULARY)
        try:
            compiled = planned.lower().compile()
        except jax.errors.JaxRuntimeError:  # the compiler finds that it is too large
            continue
        figures = compiled_figures(compiled, machine, None)
        if figures["peak_bytes_per_chip"] <= machine.memory:
            return config, planned, compiled, figures
    sys.exit(f"not even a batch of {batches[-1]} fits")


def training(sizes: Sizes, *sets: str, batches: tuple[int, ...] = ()) -> Rows:
    import jax

    from elfcli.config.cards import card_of
    from elfcli.parallel.memory import used_memory

    config, planned, compiled, figures = compiled_step(sizes, batches or sizes.batches, *sets)
    batch, devices = config.global_batch, len(jax.devices())
    yield "batch, kernel", [batch, config.training.attention]
    run = planned.executions(compiled)
    seconds, flops = seconds_of(run, sizes.steps), figures["flops_per_chip"]
    estimate = figures["step_seconds_estimate"]
    yield f"seconds a step (median of {sizes.steps}), estimate", [round(seconds, 4), round(estimate, 4)]
    yield "tokens/s", round(batch * sizes.length / seconds)
    card = card_of(jax.devices()[0].device_kind)
    peak = f", {flops / seconds / card.tflops / 1e12:.0%} of the peak" if card else ""
    yield "TFLOP/s a device", f"{flops / seconds / 1e12:.3g}{peak}"
    yield "GiB a device, plan's", [round(size / 2**30, 2) for size in (used_memory(), figures["peak_bytes_per_chip"])]
    yield "devices", devices


def plain(sizes: Sizes) -> Rows:
    """The same with plain attention, and with the fused kernel at the same batch."""
    yield from training(sizes, "attention=plain", batches=sizes.plain_batches)
    yield from training(sizes, batches=sizes.plain_batches)


def kernels(sizes: Sizes) -> Rows:
    import jax

    _, planned, compiled, _ = compiled_step(sizes, sizes.plain_batches)
    run = planned.executions(compiled)
    jax.block_until_ready(run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready([run() for _ in range(3)][-1])
        trace = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
    times: Counter[str] = Counter()
    for plane in trace.planes:
        for line in plane.lines if "/device:" in plane.name else ():
            for event in line.events if line.name.startswith(("Stream", "XLA Ops")) else ():
                times[event.name[:60]] += int(event.duration_ns)
    yield "ms of all kernels in a step", round(sum(times.values()) / 3e6, 2)
    for name, nanoseconds in times.most_common(10):
        yield name, f"{nanoseconds / 3e6:.2f} ms a step"


def sampling(sizes: Sizes) -> Rows:
    import jax

    from elfcli.config.resolve import resolve
    from elfcli.planning.chips import find_machine
    from elfcli.planning.programs import sampling_batch
    from elfcli.sampling.settings import SamplingSetting
    from elfcli.weights.published import VOCABULARY

    config = resolve(task="owt", model="ELF-B", sets=[f"max_length={sizes.length}", *sizes.sets], environ={}).config
    texts = -(-sizes.texts // len(jax.devices())) * len(jax.devices())
    setting = SamplingSetting(num_sampling_steps=sizes.sampling_steps)
    planned = sampling_batch(config, find_machine("local"), VOCABULARY, setting, texts)
    seconds = seconds_of(planned.executions(planned.lower().compile()), 3)
    what = f"seconds for {texts} texts of {sizes.length} tokens, {sizes.sampling_steps} steps"
    yield what, round(seconds, 3)
    yield "sampled tokens/s", round(texts * sizes.length / seconds)


def resume(sizes: Sizes) -> Rows:
    command = [sys.executable, HERE / "kill.py", "--kills", "1", "--steps", "40"]
    done = subprocess.run(command, capture_output=True, text=True)
    yield "a run killed once and resumed, against one that was not", done.stdout.strip() or done.stderr[-300:]


PARTS = {versions: 0.05, goldens: 0.12, attention: 0.1, training: 0.25, plain: 0.18, kernels: 0.1, sampling: 0.08,
         resume: 0.12}  # shares of the minutes  # fmt: skip
NAMES = {part.__name__: part for part in PARTS}


def run_part(name: str, sizes: Sizes, file: Path) -> None:
    """Print the rows of a part, and append each to a file of JSON lines."""
    for what, value in NAMES[name](sizes):
        print(f"{name:10} {what}: {value}", flush=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"part": name, "what": what, "value": value}) + "\n")


def write_results(lines: Path, folder: Path) -> None:
    """Write results.json and the Markdown table results.md."""
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
    (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    table = ["| part | what | value |", "|---|---|---|"]
    table += [f"| {row['part']} | {row['what']} | {str(row['value']).replace('|', '/')} |" for row in rows]
    (folder / "results.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--output", type=Path, default=Path("accelerator"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", choices=NAMES, help="only this one, in this process")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    lines = asked.output / "results.jsonl"
    if asked.part:
        import jax

        return run_part(asked.part, TINY if asked.tiny or jax.default_backend() == "cpu" else FULL, lines)
    lines.unlink(missing_ok=True)
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")  # as `elf train` does
    for part, share in PARTS.items():
        limit = 60 * asked.minutes * share
        command = [sys.executable, __file__, "--part", part.__name__, "--output", asked.output]
        try:
            code = subprocess.run([*command, *["--tiny"] * asked.tiny], timeout=limit).returncode
            problem = f"ended with code {code}" if code else ""
        except subprocess.TimeoutExpired:
            problem = f"stopped after its {limit:.0f} s"
        if problem:
            print(f"{part.__name__:10} {problem}", flush=True)
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"part": part.__name__, "what": "problem", "value": problem}) + "\n")
        write_results(lines, asked.output)
    print(f"written to {asked.output}/results.json and results.md")


if __name__ == "__main__":
    main()
