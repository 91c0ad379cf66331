"""`elf plan`: what a run will cost, before there is a machine for it."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli import options as o


def plan(
    topology: Annotated[
        str, o.option("--topology", "NAME", "TPU slice, e.g. v5p-64, or `local` for this machine.")
    ] = "local",
    task: o.TaskOption = None,
    model: o.ModelOption = None,
    data: Annotated[str | None, o.option("--data", "DIR", "Training data, for the run's length.")] = None,
    examples: Annotated[int | None, o.option("--examples", "N", "Training examples, without data.", min=1)] = None,
    batch_size: Annotated[
        int | None, o.option("--batch-size", "N", "Examples per batch over all chips; texts with --sampling.", min=1)
    ] = None,
    sampling: Annotated[bool, o.option("--sampling", "", "Plan `elf sample` instead of `elf train`.")] = False,
    distill: Annotated[
        bool, o.option("--distill", "", "Plan the rounds of `elf distill` instead of `elf train`.")
    ] = False,
    num_samples: Annotated[int | None, o.option("--num-samples", "N", "Texts, with --sampling.", min=1)] = None,
    json_file: Annotated[Path | None, o.option("--json", "FILE", "Write the figures here.")] = None,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace that file.")] = False,
    config: o.ConfigOption = None,
    config_style: o.ConfigStyleOption = None,
    sets: o.SetOption = None,
) -> None:
    """Compile a run's step for a machine that need not be here: memory, work, time, and what to change.

    On this machine (--topology local) the step is run a few times, and its time is measured.
    """
    from dataclasses import asdict

    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file, write_result
    from elfcli.planning.slices import check_name, prepare_compiler

    check_name(topology)
    check_output_file(json_file, overwrite, "--json")
    if num_samples is not None and not sampling:
        raise InputError("--num-samples is for --sampling; a run's length is set with --examples or -s steps=N")
    if distill and sampling:
        raise InputError("--distill and --sampling plan different things: give one of them")
    prepare_compiler(topology)

    from elfcli.config.resolve import check_again, resolve, with_devices
    from elfcli.recipe.defaults import DEFAULT_TASK, needs_task, with_local_data
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
    from elfcli.planning.plan import plan_rounds, plan_sampling, plan_training, with_own_recipe

    machine = find_machine(topology)
    resolved = with_own_recipe(resolved, machine)
    if not sampling:
        resolved = with_devices(resolved, len(machine.devices))
    resolved = check_again(resolved)
    say(f"compiling for {topology} (a minute or more for large models)")
    if distill:
        rounds = plan_rounds(resolved.config, topology, examples)
        write_result(json_file, [asdict(one) for one in rounds], overwrite)
        typer.echo("\n\n".join([*map(described, rounds), in_all(rounds)]))
        return
    if sampling:
        found = plan_sampling(resolved.config, topology, batch_size or 64, num_samples)
    else:
        found = plan_training(resolved.config, topology, examples)
    write_result(json_file, asdict(found), overwrite)
    typer.echo(described(found))


MODELLED = " by the compiler's estimate, communication not counted"


def in_all(rounds: list) -> str:
    """What all rounds of a distillation cost together."""
    costs = [one.chip_hours_estimate for one in rounds if one.chip_hours_estimate is not None]
    if len(costs) < len(rounds):
        return "all rounds      not known: a round does not fit, or its length is not known"
    return f"all rounds      {sum(costs) / rounds[0].chips:,.3g} hours, {sum(costs):,.3g} chip-hours"


def described(found) -> str:
    """The plan as lines for the terminal."""
    memory, used = found.chip_memory_bytes, found.peak_bytes_per_chip
    share = f"{used / 2**30:.2f} of {memory / 2**30:.1f} GiB per device ({used / memory:.0%})"
    machine = f"{found.topology}: {found.chips} device(s), fsdp {found.fsdp}"
    rows = [
        ("program", f"{found.program}, batch {found.batch_size}, {machine}"),
        ("memory", f"{share}: {'fits' if found.fits else 'DOES NOT FIT'}"),
    ]
    step = found.step_seconds_estimate
    how = ", measured on this machine" if found.time_measured else MODELLED
    if step:
        sent = f"{found.collective_bytes_per_chip / 1e9:.3g} GB sent per device and step"
        if found.collective_seconds_estimate is not None:
            sent += f", {found.collective_seconds_estimate * 1e3:.2g} ms over the links"
        rows += [
            ("arithmetic", f"{found.flops_per_chip / 1e12:.3g} TFLOP per device and step"),
            ("memory traffic", f"{found.bytes_accessed_per_chip / 1e9:.3g} GB per device and step"),
            ("collectives", sent),
            ("step", f"{step:.3g} s{how}"),
        ]
    if found.total_steps and found.chip_hours_estimate is not None:
        hours = f"{found.total_steps * step / 3600:,.3g} hours, {found.chip_hours_estimate:,.3g} chip-hours"
        hours += " at the measured pace" if found.time_measured else ""
        rows.append(("whole run", f"{found.total_steps:,} steps, {hours}"))
    rows.append(("compilation", f"{found.compile_seconds:.1f} s"))
    rows += [("note", note) for note in found.notes] + [("to make it fit", advice) for advice in found.advice]
    return "\n".join(f"{name:15} {text}" for name, text in rows)
