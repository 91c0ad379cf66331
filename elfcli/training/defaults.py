"""What `elf train` fills in where it was told nothing: the run folder and a built-in task's data. Each is said."""

from pathlib import Path

from elfcli.config.resolve import Origin, Resolved
from elfcli.data.toy import TASKS
from elfcli.errors import InputError
from elfcli.training.run import is_run
from elfcli.ui.progress import say


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
    return changed(resolved, "training", output_dir=str(folder)), folder


def with_data(resolved: Resolved) -> Resolved:
    """Absolute data paths, and the generated data of a built-in task where no data was given."""
    data = resolved.config.data
    if data.data_path is None and data.task in TASKS:
        folder = Path("runs") / "data" / data.task
        if not folder.is_dir():
            from elfcli.data.tokenize import Job, tokenize

            say(f"no --data: making the data of {data.task} in {folder}")
            tokenize(Job(folder, task=data.task))
        else:
            say(f"no --data: using {folder}")
        resolved = changed(resolved, "data", data_path=str(folder))
    paths = {name: getattr(resolved.config.data, name) for name in ("data_path", "eval_data_path", "tokenizer_name")}
    local = {name: str(Path(path).absolute()) for name, path in paths.items() if path and Path(path).exists()}
    return changed(resolved, "data", keep_origin=True, **local)


def changed(resolved: Resolved, section: str, keep_origin: bool = False, **values) -> Resolved:
    """The settings with some of one section's values replaced."""
    part = getattr(resolved.config, section).model_copy(update=values)
    origins = (
        resolved.origins if keep_origin else resolved.origins | {name: Origin("chosen by elf") for name in values}
    )
    return Resolved(resolved.config.model_copy(update={section: part}), origins, resolved.warnings)
