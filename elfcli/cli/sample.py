"""`elf sample`: texts from a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from elfcli.cli import options as o

if TYPE_CHECKING:
    from elfcli.corpus.files import Layout
    from elfcli.sampling.model import LoadedModel
    from elfcli.sampling.sources import Sources

INPUT = ("Sources: JSON lines, CSV, TSV, Parquet, text lines; an address; a split of a Hub data set (OWNER/NAME:test); "
         "- for standard input.")  # fmt: skip
TRACE = "Page or animation of the denoising to write; the samples stay the same."
SOURCE_KEY = "Column of the sources (default: `input`, `source`, or the training data's)."

PROMPT = "Beginning to continue; repeatable."
TEMPLATE = "Text to fill: [..] is a gap, [..8] one of at most 8 tokens, [2..5] of 2 to 5, \\[..] is none; repeatable."
TEMPLATE_KEY = "Column of templates in the input."


@o.several_processes
@o.settings_options
@o.sampling_options
@o.layout_options
@o.checkpoint_options
def sample(
    checkpoint: str | None,
    settings: o.SettingsOptions,
    setting_options: dict[str, str | None],
    layout: dict[str, Any],
    num_samples: o.NumSamplesOption = None,
    input_: Annotated[str | None, o.option("--input -i", "FILE", INPUT)] = None,
    source_key: Annotated[str | None, o.option("--source-key", "KEY", SOURCE_KEY)] = None,
    prompt: Annotated[list[str] | None, o.option("--prompt", "TEXT", PROMPT)] = None,
    template: Annotated[list[str] | None, o.option("--template", "TEXT", TEMPLATE)] = None,
    template_key: Annotated[str | None, o.option("--template-key", "KEY", TEMPLATE_KEY)] = None,
    allow_unknown: o.AllowUnknownOption = False,
    data: Annotated[str | None, o.option("--data", "DIR", "Data folder whose sources are sampled.")] = None,
    seed: o.SeedOption = 0,
    batch_size: o.BatchSizeOption = 64,
    at_step: o.StepOption = None,
    raw_weights: o.RawOption = False,
    output: Annotated[Path | None, o.option("--output -o", "F.jsonl", "File to write.")] = None,
    trace: Annotated[Path | None, o.option("--trace", "F.html|F.gif", TRACE)] = None,
    watch: Annotated[bool, o.option("--watch", "", "Show the denoising in the terminal.")] = False,
    overwrite: Annotated[bool, o.option("--overwrite", "", "Replace the output file.")] = False,
) -> None:
    """Sample texts: one per source, template or prompt, otherwise --num-samples of them.

    Example: elf sample runs/my --input test.csv --output samples.jsonl

    elf sample runs/my --template "Dear [..], thank you for [..]."
    """
    from elfcli import api
    from elfcli.cli.output import show_samples
    from elfcli.cli.trace_output import check_trace, traced_samples
    from elfcli.corpus.files import layout_of
    from elfcli.errors import InputError
    from elfcli.outputs import check_output_file
    from elfcli.parallel.agree import broadcast_from_first
    from elfcli.sampling.settings import one_setting, one_value_each
    from elfcli.scoring.samples_file import check_meta, write_meta
    from elfcli.ui.progress import is_first_process, progress, say

    given, read_as, known = one_value_each(setting_options), layout_of(**layout), bool(prompt or template)
    if known + (input_ is not None) + (data is not None) > 1:
        raise InputError("--prompt and --template, --input, and --data each say what is sampled: pass one of them")
    for name, key in (("--source-key", source_key), ("--template-key", template_key)):
        if key is not None and input_ is None:
            raise InputError(f"{name} names a column of the input: pass --input as well")
    broadcast_from_first(lambda: check_output_file(output, overwrite))
    broadcast_from_first(lambda: check_meta(output, overwrite))
    if trace is not None:
        broadcast_from_first(lambda: check_trace(trace, overwrite))

    loaded = api.load(checkpoint, at_step=at_step, raw_weights=raw_weights, **vars(settings)).loaded
    from elfcli.sampling.generate import Options, sample_rows
    from elfcli.sampling.made_by import origin_of
    from elfcli.scoring.samples_file import write_samples
    from elfcli.scoring.text_quality import shortcomings

    setting = one_setting(loaded.config, given, fills=known or template_key is not None)
    if setting_options["sampler"] == "sde" and setting_options["gamma"] is None:
        say(f"no --gamma: using {setting.sde_gamma:g}, from the nearest SDE setting of this or published models")
    what = name_of(input_, [*(template or ()), *(prompt or ())])
    name = f"step{loaded.step}-{setting.name}-seed{seed}{'-raw' if raw_weights else ''}{what}.jsonl"
    path = output or loaded.folder / "samples" / name
    broadcast_from_first(lambda: check_output_file(path, overwrite, "--output or --seed"))
    broadcast_from_first(lambda: check_meta(path, overwrite))
    sources = chosen_sources(
        loaded, prompt or (), template or (), input_, source_key=source_key, template_key=template_key, data=data,
        count=num_samples, layout=read_as, allow_unknown=allow_unknown, seed=seed,
    )  # fmt: skip
    say(f"{setting.name}, {len(sources.rows)} texts to {path}")
    options = Options(seed, batch_size)
    if trace is not None or watch:
        samples = traced_samples(loaded, sources, setting, options, trace, watch, overwrite)
    else:
        with progress("sample", len(sources.rows)) as update:
            samples = sample_rows(loaded, sources, setting, options, update)
    broadcast_from_first(lambda: write_samples(path, samples, overwrite))
    split = split_sampled(loaded.config, data, input_, known)
    broadcast_from_first(lambda: write_meta(path, origin_of(loaded, setting, seed, split, sources), overwrite))
    if line := shortcomings([row["generated"] for row in samples]):
        say(line)
    if is_first_process():
        show_samples(samples)


def chosen_sources(
    loaded: "LoadedModel",
    prompts: Sequence[str],
    templates: Sequence[str],
    input_: str | None,
    *,
    source_key: str | None,
    template_key: str | None,
    data: str | None,
    count: int | None,
    layout: "Layout",
    allow_unknown: bool,
    seed: int,
) -> "Sources":
    """Return what the options say is sampled."""
    from elfcli.errors import InputError
    from elfcli.sampling.gaps import sources_of_templates, templates_of, templates_of_file
    from elfcli.sampling.sources import require_sources, rows_of_file, sources_of

    if template_key is not None and source_key is not None:
        raise InputError("--template-key and --source-key exclude each other: a column holds templates or sources")
    if prompts or templates:
        found = templates_of(templates, prompts, ("--template", "--prompt"))[:count]
        return sources_of_templates(loaded, found, allow_unknown, seed=seed)
    if input_ is None:
        return sources_of(loaded, data, count)
    if template_key is not None:
        return templates_of_file(loaded, input_, template_key, count, layout, allow_unknown, seed)
    require_sources(loaded)
    return rows_of_file(loaded, input_, source_key, count, layout, allow_unknown)


def name_of(input_: str | None, known: Sequence[str]) -> str:
    """Return what an input file, or templates and prompts, add to the name of the default output."""
    import xxhash

    from elfcli.corpus.files import without_compression

    if known:  # others have another file
        return f"-templates-{xxhash.xxh3_64_hexdigest(chr(0).join(known))[:8]}"
    if input_ is None:
        return ""
    return "-stdin" if input_ == "-" else f"-{Path(without_compression(Path(input_.partition('?')[0]))).stem}"


def split_sampled(config: Any, data: str | None, input_: str | None, known: bool) -> str:
    """Return what the provenance calls the sources. known: whether they are prompts or templates of options."""
    from elfcli.sampling.made_by import split_of

    if input_ is not None:
        return f"file {Path(input_).name}"
    return "templates" if known else "free" if not config.data.takes_sources else split_of(config, data)
