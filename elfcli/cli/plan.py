"""`elf plan`: what a run will cost, before there is a machine for it."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli.options import ConfigOption, ConfigStyleOption, ModelOption, SetOption, TaskOption


def plan(
    topology: Annotated[
        str, typer.Option(metavar="NAME", help="TPU slice, e.g. v5p-64, or `local` for this machine.")
    ] = "local",
    task: TaskOption = None,
    model: ModelOption = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Training data, for the run's length.")] = None,
    examples: Annotated[int | None, typer.Option(metavar="N", min=1, help="Training examples, without data.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Examples per batch over all chips; texts with --sampling.")
    ] = None,
    sampling: Annotated[bool, typer.Option("--sampling", help="Plan `elf sample` instead of `elf train`.")] = False,
    num_samples: Annotated[int | None, typer.Option(metavar="N", min=1, help="Texts, with --sampling.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file.")] = False,
    config: ConfigOption = None,
    config_style: ConfigStyleOption = None,
    sets: SetOption = None,
) -> None:
    """Compile a run's step for a machine that need not be here: memory, work, time, and what to change."""
    import json
    from dataclasses import asdict

    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file, write_whole
    from elfcli.planning.slices import check_name, prepare_compiler

    check_name(topology)
    check_output_file(json_file, overwrite, "--json")
    if num_samples is not None and not sampling:
        raise InputError("--num-samples is for --sampling; a run's length is set with --examples or -s steps=N")
    prepare_compiler(topology)

    from elfcli.config.resolve import resolve, with_devices
    from elfcli.training.defaults import DEFAULT_TASK, needs_task, with_local_data
    from elfcli.ui.progress import say

    given = [*(sets or ()), *([f"data_path={data}"] if data else [])]
    if batch_size is not None and not sampling:
        given.append(f"batch_size={batch_size}")
    resolved = resolve(task=task, model=model, files=config or (), sets=given, style=config_style)
    if needs_task(resolved, bool(config)):
        resolved = resolve(task=DEFAULT_TASK, model=model, files=config or (), sets=given)
        say(f"no --task: planning {DEFAULT_TASK}")
    resolved = with_local_data(resolved)
    for line in [*resolved.notices, *(f"warning: {warning}" for warning in resolved.warnings)]:
        say(line)

    from elfcli.planning.chips import find_machine
    from elfcli.planning.plan import plan_sampling, plan_training

    say(f"compiling for {topology} (a minute or more for large models)")
    if sampling:
        found = plan_sampling(resolved.config, topology, batch_size or 64, num_samples)
    else:
        resolved = with_devices(resolved, len(find_machine(topology).devices))
        found = plan_training(resolved.config, topology, examples)
    if json_file is not None:
        write_whole(json_file, json.dumps(asdict(found), indent=1) + "\n")
    typer.echo(described(found))


def described(found) -> str:
    """The plan as lines for the terminal."""
    gib = 2**30
    used = found.peak_bytes_per_chip / found.chip_memory_bytes
    rows = [
        ("program", f"{found.program}, batch {found.batch_size}, {found.topology}: {found.chips} device(s), "
                    f"fsdp {found.fsdp}"),
        ("memory", f"{found.peak_bytes_per_chip / gib:.2f} of {found.chip_memory_bytes / gib:.1f} GiB per device "
                   f"({used:.0%}): {'fits' if found.fits else 'DOES NOT FIT'}"),
    ]  # fmt: skip
    if found.step_seconds_estimate:
        rows += [
            ("arithmetic", f"{found.flops_per_chip / 1e12:.3g} TFLOP per device and step"),
            ("memory traffic", f"{found.bytes_accessed_per_chip / 1e9:.3g} GB per device and step"),
            ("collectives", f"{found.collective_bytes_per_chip / 1e9:.3g} GB sent per device and step" + (
                f", {found.collective_seconds_estimate * 1e3:.2g} ms over the links"
                if found.collective_seconds_estimate is not None else "")),
            ("step", f"{found.step_seconds_estimate:.3g} s by the compiler's estimate, communication not counted"),
        ]  # fmt: skip
    if found.total_steps and found.chip_hours_estimate is not None:
        hours = found.total_steps * found.step_seconds_estimate / 3600
        rows.append(("whole run", f"{found.total_steps:,} steps, {hours:,.3g} hours, "
                                  f"{found.chip_hours_estimate:,.3g} chip-hours"))  # fmt: skip
    rows.append(("compilation", f"{found.compile_seconds:.1f} s"))
    rows += [("note", note) for note in found.notes]
    rows += [("to make it fit", way) for way in found.advice]
    return "\n".join(f"{name:15} {text}" for name, text in rows)
