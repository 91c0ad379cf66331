"""The task, run folder and data that `elf train` chooses by default; each choice is printed."""

from pathlib import Path

from elfcli.config.reference import DEFAULT_LAYER
from elfcli.config.resolve import Resolved, changed
from elfcli.corpus.public import default_folder
from elfcli.corpus.toy import TASKS
from elfcli.data.folder import METADATA_FILE, Examples
from elfcli.data.gaps import ROOM
from elfcli.data.lengths import rounded
from elfcli.errors import InputError
from elfcli.runs.folder import is_run
from elfcli.ui.progress import say

DEFAULT_TASK = "owt"
OVERFIT_STEPS, OVERFIT_PASSES = 1000, 250  # the larger of the two; a batch is 8 to 32 of the examples


def needs_task(resolved: Resolved, has_files: bool) -> bool:
    """Return whether neither task, data nor settings file is given, so that the default task is used."""
    data = resolved.config.data
    return data.task is None and data.data_path is None and not has_files


def with_overfit_length(resolved: Resolved) -> Resolved:
    """Set the number of steps for `--overfit` unless the user chose a length."""
    few = resolved.config.training.overfit_examples
    length_layers = {resolved.origins[name].layer for name in ("steps", "minutes", "epochs")}
    if few is None or not length_layers <= {"default", "task preset"}:
        return resolved
    return changed(resolved, "training", "to overfit", steps=max(OVERFIT_STEPS, OVERFIT_PASSES * few // 32))


def with_output(resolved: Resolved) -> tuple[Resolved, Path]:
    """Return the settings and the run folder, by default `runs/<task>-<model>`."""
    config = resolved.config
    if config.training.output_dir is not None:
        return resolved, Path(config.training.output_dir)
    names = [name for name in (config.data.task, config.network.model) if name]
    folder = Path("runs") / ("-".join(names) or "elf")
    if is_run(folder):
        raise InputError(
            f"{folder} already holds a run; continue it with `elf resume {folder}`, or choose another --output"
        )
    say(f"no --output: writing the run to {folder}")
    return changed(resolved, "training", "chosen by elf", output_dir=str(folder)), folder


def with_data(resolved: Resolved) -> Resolved:
    """Return the settings with absolute data paths.

    If no data is given, it is what `elf tokenize --task` wrote to the default folder, otherwise generated data of a toy
    task, otherwise the published data set.
    """
    data = resolved.config.data
    from_preset = resolved.origins["data_path"].layer == "task preset"
    if data.task is not None and (data.data_path is None or from_preset):
        folder = default_folder(data.task)
        exists = (folder / METADATA_FILE).is_file()
        if not exists and data.task in TASKS:
            from elfcli.corpus.tokenize import Job, tokenize

            say(f"no --data: generating the data of {data.task} in {folder}")
            tokenize(Job(folder, task=data.task))
        elif exists:
            say(f"no --data: using {folder}")
        elif from_preset:
            say(f"no --data and no {folder}: using the published data {data.data_path}")
        if exists or data.task in TASKS:
            resolved = with_folder(resolved, folder)
    paths = {name: getattr(resolved.config.data, name) for name in ("data_path", "eval_data_path", "tokenizer_name")}
    local = {name: str(Path(path).absolute()) for name, path in paths.items() if path and Path(path).exists()}
    return changed(resolved, "data", None, **local)


def with_local_data(resolved: Resolved) -> Resolved:
    """Return the settings with the task's data folder, if it exists and no data is given."""
    data = resolved.config.data
    if data.task is None or (data.data_path is not None and resolved.origins["data_path"].layer != "task preset"):
        return resolved
    folder = default_folder(data.task)
    return with_folder(resolved, folder) if (folder / METADATA_FILE).is_file() else resolved


def with_folder(resolved: Resolved, folder: Path) -> Resolved:
    """Return the settings with a local data folder; its validation split replaces a preset's evaluation data."""
    if resolved.origins["eval_data_path"].layer == "task preset" and (folder / "validation").is_dir():
        resolved = changed(resolved, "data", "chosen by elf", eval_data_path=None)
    return changed(resolved, "data", "chosen by elf", data_path=str(folder))


def with_source_length(resolved: Resolved, examples: Examples) -> Resolved:
    """Choose max_input_length of data with sources, unless it is set. Raises InputError if it is set to 0.

    It has room for 99% of the sources (for all of them in a file of the reference, which has no limit) and leaves room
    for 99% of the texts, or half of max_length.
    """
    sources, origin = examples.tokens.condition_input_ids, resolved.origins["max_input_length"]
    if resolved.config.data.gaps:
        check_gaps(resolved, examples)
    if sources is None or resolved.config.data.max_input_length:
        return resolved
    wanted = rounded(sources.lengths(), 100 if origin.layer == DEFAULT_LAYER else 99)
    if origin.layer not in ("default", DEFAULT_LAYER):
        raise InputError(
            f"{origin.place()}: max_input_length 0, but {examples.path} has sources (condition_input_ids), which "
            f"training would drop: set it to the maximum length of a source, e.g. {wanted}, or use data without sources"
        )
    most = resolved.config.data.max_length
    text = min(rounded(examples.tokens.input_ids.lengths(), 99), most // 2)
    length = max(min(wanted, most - text), 1)
    say(f"max_input_length {length}, from the data: {examples.path} has sources of up to {wanted} tokens")
    return changed(resolved, "data", "from the data", max_input_length=length)


def check_gaps(resolved: Resolved, examples: Examples) -> None:
    """Raise InputError if gaps cannot be drawn: from data with sources, or if max_length has no room for them."""
    if examples.tokens.condition_input_ids is not None:
        raise InputError(f"gaps: {examples.path} has pairs, but gaps are drawn from free texts: tokenize the texts "
                         "alone (--text-key KEY)")  # fmt: skip
    if (longest := resolved.config.data.max_length) <= ROOM:
        raise InputError(f"gaps: max_length {longest} leaves no room for text beside {ROOM} positions of padding: "
                         "increase it")  # fmt: skip
