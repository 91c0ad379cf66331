"""What `elf train` fills in where it was told nothing: task, run folder and data. Each is said in one line."""

from pathlib import Path

import numpy as np

from elfcli.config.reference import DEFAULT_LAYER
from elfcli.config.resolve import Resolved, changed
from elfcli.data.batches import TokenColumn
from elfcli.data.folder import METADATA_FILE, Examples
from elfcli.data.public import default_folder
from elfcli.data.toy import TASKS
from elfcli.errors import InputError
from elfcli.runs.folder import is_run
from elfcli.ui.progress import say

DEFAULT_TASK = "owt"


def needs_task(resolved: Resolved, has_files: bool) -> bool:
    """Whether nothing says what to train on, so that the default task's recipe is taken."""
    data = resolved.config.data
    return data.task is None and data.data_path is None and not has_files


def with_output(resolved: Resolved) -> tuple[Resolved, Path]:
    """The run folder, `runs/<task>-<model>` where none was given."""
    given = resolved.config.training.output_dir
    if given is not None:
        return resolved, Path(given)
    config = resolved.config
    folder = Path("runs") / "-".join(name for name in (config.data.task, config.network.model) if name)
    if folder == Path("runs"):
        folder /= "elf"
    if is_run(folder):
        raise InputError(f"{folder} already holds a run; continue it with `elf resume {folder}`, or give --output")
    say(f"no --output: the run goes to {folder}")
    return changed(resolved, "training", "chosen by elf", output_dir=str(folder)), folder


def with_data(resolved: Resolved) -> Resolved:
    """Absolute data paths; where no data was given, what `elf tokenize --task` wrote here, else the task's own:
    generated for a toy task, the published data set for others."""
    data = resolved.config.data
    preset = resolved.origins["data_path"].layer == "task preset"
    if data.task is not None and (data.data_path is None or preset):
        folder = default_folder(data.task)
        made = (folder / METADATA_FILE).is_file()
        if not made and data.task in TASKS:
            from elfcli.data.tokenize import Job, tokenize

            say(f"no --data: making the data of {data.task} in {folder}")
            tokenize(Job(folder, task=data.task))
        elif made:
            say(f"no --data: using {folder}")
        elif preset:
            say(f"no --data and no {folder}: using the published data {data.data_path}")
        if made or data.task in TASKS:
            resolved = with_folder(resolved, folder)
    paths = {name: getattr(resolved.config.data, name) for name in ("data_path", "eval_data_path", "tokenizer_name")}
    local = {name: str(Path(path).absolute()) for name, path in paths.items() if path and Path(path).exists()}
    return changed(resolved, "data", None, **local)


def with_source_length(resolved: Resolved, examples: Examples) -> Resolved:
    """max_input_length of data with sources: from the data where nothing set it. InputError for a 0 that was set.

    It has room for 99% of the sources (all of them in a file of the reference, which knows no limit) and leaves
    that for 99% of the texts, or half of max_length.
    """
    sources, origin = examples.tokens.condition_input_ids, resolved.origins["max_input_length"]
    if sources is None or resolved.config.data.max_input_length:
        return resolved
    if origin.layer not in ("default", DEFAULT_LAYER):
        raise InputError(
            f"{origin.place()}: max_input_length 0, but {examples.path} has sources (condition_input_ids), and "
            f"training would drop them: set it to the most tokens of a source, e.g. {rounded(sources, 99)}, or give "
            "data without sources"
        )
    most = resolved.config.data.max_length
    wanted = rounded(sources, 100 if origin.layer == DEFAULT_LAYER else 99)
    room = min(rounded(examples.tokens.input_ids, 99), most // 2)
    length = max(min(wanted, most - room), 1)
    say(f"max_input_length {length}, from the data: {examples.path} has sources, of up to {wanted} tokens")
    return changed(resolved, "data", "from the data", max_input_length=length)


def rounded(column: TokenColumn, percentile: int) -> int:
    """So many percent of the rows have no more tokens, rounded up to a multiple of 8."""
    return max(-(-int(np.percentile(column.lengths(), percentile, method="inverted_cdf")) // 8) * 8, 8)


def with_local_data(resolved: Resolved) -> Resolved:
    """The settings with the data of the task that lies here, where none were given."""
    data = resolved.config.data
    if data.task is None or (data.data_path is not None and resolved.origins["data_path"].layer != "task preset"):
        return resolved
    folder = default_folder(data.task)
    return with_folder(resolved, folder) if (folder / METADATA_FILE).is_file() else resolved


def with_folder(resolved: Resolved, folder: Path) -> Resolved:
    """The settings with a local data folder; a preset's evaluation data gives way to its validation split."""
    if resolved.origins["eval_data_path"].layer == "task preset" and (folder / "validation").is_dir():
        resolved = changed(resolved, "data", "chosen by elf", eval_data_path=None)
    return changed(resolved, "data", "chosen by elf", data_path=str(folder))
