"""`elf plan`: the memory, FLOPs and time of a run, without the machine it is for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elfcli.cli import options as o

if TYPE_CHECKING:
    from elfcli.planning.plan import Estimate

TOPOLOGY = "TPU slice, e.g. v5p-64; GPUs, e.g. h100x8; or `local` for this machine."
EXAMPLES = "Number of training examples, if the data is not available."
TEXTS = "Number of texts, with --sampling."
BATCH = "Examples per batch over all devices; texts with --sampling."


@o.settings_options
def plan(
    settings: o.SettingsOptions,
    topology: Annotated[str, o.option("--topology", "NAME", TOPOLOGY)] = "local",
    data: Annotated[str | None, o.option("--data", "DIR", "Training data, for the run's length.")] = None,
    examples: Annotated[int | None, o.option("--examples", "N", EXAMPLES, min=1)] = None,
    batch_size: Annotated[int | None, o.option("--batch-size", "N", BATCH, min=1)] = None,
    sampling: Annotated[bool, o.option("--sampling", "", "Plan `elf sample` instead of `elf train`.")] = False,
    distill: Annotated[
        bool, o.option("--distill", "", "Plan `elf distill` with both objectives instead of `elf train`.")
    ] = False,
    num_samples: Annotated[int | None, o.option("--num-samples", "N", TEXTS, min=1)] = None,
    json_file: Annotated[Path | None, o.option("--json", "FILE", "Write the estimate to this file.")] = None,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace an existing file.")] = False,
) -> None:
    """Estimate the memory, FLOPs and time of a run by compiling its step for a target machine, and suggest settings
    that fit. On this machine (--topology local) the step is also run a few times and timed.

    Example: elf plan --task owt --model ELF-B --topology v5p-64
    """
    from dataclasses import asdict

    from elfcli import api
    from elfcli.config.resolve import check_again
    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file, write_result
    from elfcli.planning.slices import check_name, prepare_compiler

    check_name(topology)
    check_output_file(json_file, overwrite, "--json")
    if num_samples is not None and not sampling:
        raise InputError("--num-samples is for --sampling; set a run's length with --examples or -s steps=N")
    if distill and sampling:
        raise InputError("--distill and --sampling plan different things: pass one of them")
    prepare_compiler(topology)

    from elfcli.planning.chips import find_machine
    from elfcli.planning.plan import plan_rounds, plan_sampling, plan_stages, plan_training, settings_to_plan
    from elfcli.recipe.apply import requested_settings
    from elfcli.recipe.choose import FROM_MACHINE
    from elfcli.ui.progress import say

    flags = {"data_path": data, "batch_size": None if sampling else batch_size}
    layers = api.settings(settings.config, settings.config_style, settings.sets)
    resolved = requested_settings(task=settings.task, model=settings.model, flags=flags, **layers)
    resolved = check_again(settings_to_plan(resolved, find_machine(topology), keep_batch=sampling))
    say(f"compiling for {topology} (a minute or more for large models)")
    if distill:
        rounds = plan_rounds(resolved.config, topology, examples)
        stages = plan_stages(resolved.config, topology)
        write_result(json_file, [asdict(one) for one in [*rounds, *stages]], overwrite)
        typer.echo("\n\n".join([*map(described, rounds), total_of("all rounds", rounds)]))
        last = "--objective mmd is not for this teacher: it has sources, or no self-conditioning"
        typer.echo("\n" + "\n\n".join([*map(described, stages), total_of("both stages", stages) if stages else last]))
        return
    if sampling:
        found = plan_sampling(resolved.config, topology, batch_size or 64, num_samples)
    else:
        chosen = resolved.origins["batch_size"].layer == FROM_MACHINE
        found = plan_training(resolved.config, topology, examples, may_divide=chosen)
    write_result(json_file, asdict(found), overwrite)
    typer.echo(described(found))


MODELLED = " by the compiler's estimate, without communication"


def total_of(name: str, rounds: Sequence["Estimate"]) -> str:
    """Return what all rounds or stages of a distillation cost together."""
    costs = [one.chip_hours_estimate for one in rounds if one.chip_hours_estimate is not None]
    if len(costs) < len(rounds):
        return f"{name:15} unknown: one does not fit, or its length is unknown"
    return f"{name:15} {sum(costs) / rounds[0].chips:,.3g} hours, {sum(costs):,.3g} chip-hours"


def described(found: "Estimate") -> str:
    """Return the plan as lines for the terminal."""
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
