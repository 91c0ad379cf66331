"""Opens trained networks: of a run, an exported folder, files of the reference or the PyTorch port, the Hub.
`open_source` reads any of them and describes it; `config_of` (settings.py) returns the settings to use it with."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from elfcli.config.resolve import resolve
from elfcli.errors import InputError, did_you_mean, near_file
from elfcli.hub_access import from_hub, hub_reachable, looks_like_a_path, retrying
from elfcli.runs.folder import CONFIG_FILE, best_of, chosen_step, is_run
from elfcli.runs.rounds import is_distilled, last_student, round_runs
from elfcli.weights.files import read_safetensors
from elfcli.weights.names import (
    PUBLISHED,
    REPOSITORIES,
    WEIGHTS_FILE,
    checkpoint_paths,
    checkpoints_in,
    is_exported,
    read_export_note,
)
from elfcli.weights.reference import elf_from_reference, read_reference_checkpoint, shape_of
from elfcli.weights.source import Source, with_own_encoder
from elfcli.weights.torch_port import TORCH_SUFFIXES, elf_from_torch, is_torch_file, is_torch_state, read_torch_state

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)*(@[\w./-]+)?")
ORBAX_MARKS = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
WEIGHT_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


def open_source(spec: str | Path, *, ema: bool = True, step: int | None = None) -> Source:
    """Return the weights that `spec` names: the moving average unless `ema` is off, the newest unless `step` is given.
    spec: run, exported or `elf distill` folder, `checkpoint_<step>` of the reference or a folder that holds some, state
    dict of the PyTorch port, `FOLDER@NAME` (`named_in`), Hub repository `org/name[/folder][@revision]` with any of
    these; else InputError."""
    name = str(spec)
    if not name.strip():
        raise InputError("--checkpoint is empty: pass a run folder, a checkpoint or a Hub name org/name")
    path = Path(name).expanduser()
    if path.exists():
        return open_local(path, name, ema, step)
    folder, at, part = name.rpartition("@")
    if at and Path(folder).expanduser().is_dir():  # wins over a Hub name with a revision
        found, own_step = named_in(Path(folder).expanduser(), part)
        if own_step is not None and step not in (None, own_step):
            raise InputError(f"{name}: this is step {own_step}, not {step}: omit --at-step")
        return open_local(found, name, ema, step if own_step is None else own_step)
    published, at, revision = name.partition("@")
    if published in PUBLISHED:
        repository = REPOSITORIES.get(published, published)
        name = f"{'' if '/' in repository else 'embedded-language-flows/'}{repository}{at}{revision}"
    repository, inside = in_repository(name)
    local = looks_like_a_path(repository) or (inside and Path(name.partition("/")[0]).exists())
    if not HUB_NAME.fullmatch(name) or local:
        near = near_file(path, PUBLISHED)
        raise InputError(f"{name}: no such checkpoint{near}; pass a run folder, a checkpoint or a Hub name org/name")
    source = open_local(hub_checkpoint(name, step), name, ema, step)
    return replace(source, name=name, description=f"{source.description}, from the Hub", from_hub=True)


def in_repository(name: str) -> tuple[str, str]:
    """Return (`org/name`, folder in it, empty for the whole) of a Hub name `org/name[/folder][@revision]`."""
    parts = name.partition("@")[0].split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def hub_checkpoint(name: str, step: int | None = None) -> Path:
    """Return a folder with the newest checkpoint, or that of `step`, of a Hub name `org/name[/folder][@revision]`."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    (repo, inside), revision = in_repository(name), name.partition("@")[2]
    download = partial(snapshot_download, repo, revision=revision or None)
    with from_hub(f"{name}:"):
        try:
            if not hub_reachable():
                # No pattern: the cache holds what was fetched, one checkpoint, and not the whole repository.
                found = Path(download(local_files_only=True, allow_patterns=[])) / inside
                if not found.exists():
                    raise LocalEntryNotFoundError(f"no {inside} in the cache")
                return found
            files = retrying(lambda: HfApi().list_repo_files(repo, revision=revision or None))
            start = f"{inside}/" if inside else ""
            within = [file.removeprefix(start) for file in files if file.startswith(start)]
            if not within:
                raise InputError(f"{name}: the repository {repo} has no folder {inside}")
            needed = [start + file for file in files_to_fetch(name, within, step)]
            return Path(retrying(lambda: download(allow_patterns=needed))) / inside
        except LocalEntryNotFoundError:
            raise InputError(f"{name}: there is no such local folder, it is not in the cache, and the Hugging Face Hub "
                             "cannot be reached; pass a local folder or file as --checkpoint") from None  # fmt: skip
        except RevisionNotFoundError:
            raise InputError(f"{name}: the repository {repo} has no revision '{revision}'") from None
        except RepositoryNotFoundError:
            raise InputError(f"{name}: there is no such local folder and no such repository on the Hub, or it is "
                             "private: check the name, or log in with `hf auth login`") from None  # fmt: skip


def files_to_fetch(name: str, files: list[str], step: int | None) -> list[str]:
    """Return the files of a repository that make one checkpoint. Raise InputError if there is none."""
    if {CONFIG_FILE, WEIGHTS_FILE} <= set(files):
        further = f"checkpoints/{step}/"
        return [file for file in files if not file.startswith("checkpoints/") or file.startswith(further)]
    if by_step := checkpoint_paths(files):
        path = by_step[chosen_step(name, by_step, step)]
        return [file for file in files if file == path or file.startswith(f"{path}/")]
    weights = [file for file in files if file.endswith((".safetensors", ".pt", ".pth"))]
    if len(weights) == 1:
        return weights
    raise InputError(f"{name}: this repository holds no ELF checkpoint (neither {WEIGHTS_FILE} with {CONFIG_FILE}, "
                     "nor checkpoint_<step>, nor one file of weights)")  # fmt: skip


def named_in(folder: Path, name: str) -> tuple[Path, int | None]:
    """Return (run, step or None: the newest) that `FOLDER@NAME` means. Raise InputError for an unknown name. NAME:
    `best` or a step, of a run or of the last student, or a round of a folder of `elf distill`."""
    rounds = round_runs(folder)
    if name in rounds:
        return rounds[name], None
    run = last_student(folder) if rounds else folder
    known = list(rounds)
    if is_run(run):
        if name.isdecimal():
            return run, int(name)
        best = best_of(run)
        if name == "best":
            if best is not None:
                return run, best["step"]
            raise InputError(f"{folder}@best: no evaluation during training has chosen a best checkpoint yet")
        known += [*(["best"] if best else []), "the number of a step"]
    hint = f"{did_you_mean(name, known)}; expected {', '.join(known)}" if known else ": it has no named parts"
    raise InputError(f"{folder}@{name}: {folder} has no checkpoint of this name{hint}")


def open_local(path: Path, name: str, ema: bool, step: int | None) -> Source:
    """Return the weights of a local file or folder. name: what the user wrote."""
    if path.is_file():
        return _open_file(path, name, ema, step)
    if is_distilled(path):
        return _open_run(last_student(path), name, ema, step)
    if is_exported(path):
        return _open_exported(path, name, ema, step)
    if is_run(path):
        return _open_run(path, name, ema, step)
    if any((path / mark).exists() for mark in ORBAX_MARKS):
        return _open_reference(path, name, ema, step)
    if by_step := checkpoints_in(path):
        return _open_file(by_step[chosen_step(name, by_step, step)], name, ema, step)
    files = sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if len(files) == 1:
        return _open_weights_file(files[0], name, ema, step)
    raise InputError(f"{name}: no checkpoint in this folder: expected a run of `elf train`, a folder of `elf "
                     "export`, `checkpoint_<step>` of the reference, or one .safetensors or .pt file")  # fmt: skip


def _open_file(path: Path, name: str, ema: bool, step: int | None) -> Source:
    weights = path.is_file() and (path.suffix == ".safetensors" or is_torch_file(path))
    return (_open_weights_file if weights else _open_reference)(path, name, ema, step)


def _open_run(folder: Path, name: str, ema: bool, step: int | None) -> Source:
    from elfcli.runs.checkpoint import load_weights

    params, step = load_weights(folder, ema=ema, step=step)
    text = f"{name}: run at step {step}, {_weights(ema)}"
    return _with_config(Source("run", name, text, params, shape_of(params), step, ema), folder)


def _open_exported(folder: Path, name: str, ema: bool, step: int | None) -> Source:
    file = folder / WEIGHTS_FILE
    if step is not None and read_export_note(file).get("step") != step:
        file = folder / "checkpoints" / str(step) / WEIGHTS_FILE
        if not file.is_file():
            raise InputError(f"{name}: no checkpoint of step {step} in this exported model")
    return _with_config(replace(_open_weights_file(file, name, ema, None), kind="exported"), folder)


def _with_config(source: Source, folder: Path) -> Source:
    """Return the source with the settings and the tokenizer in its folder."""
    file = folder / CONFIG_FILE
    config = with_own_encoder(resolve(files=[file], environ={}).config, folder)
    if student := config.distillation.student:
        source = replace(source, description=f"{source.description}, {student}")
    source = replace(source, shape=replace(source.shape, text_position=config.network.text_position))
    return replace(source, config=config, config_file=file, tokenizer=str(folder / "tokenizer"), folder=folder)


def _open_weights_file(path: Path, name: str, ema: bool, step: int | None) -> Source:
    """Open one file of weights: ours (the reference's paths as names) or the PyTorch port's."""
    torch_file = path.suffix != ".safetensors"
    if step is not None and not torch_file:
        raise InputError(f"{name}: this file holds a single step: omit --at-step")
    state, info = read_torch_state(path, ema=ema) if torch_file else (read_safetensors(path), read_export_note(path))
    if step not in (None, info.get("step")):
        raise InputError(f"{name}: it holds step {info.get('step', 'unknown')}, not {step}")
    try:
        if is_torch_state(state):
            params, kind, text = elf_from_torch(state), "torch", "weights of the PyTorch port"
        else:
            flat = {key.replace(".", "/"): array for key, array in state.items()}
            params, kind, text = elf_from_reference(flat), "exported", "exported model"
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    averaged = info.get("weights") != "raw"
    if info.get("weights") == "ema" and not ema:
        raise InputError(f"{name}: it holds EMA weights only; omit --raw-weights")
    text += f" of step {info['step']}" if "step" in info else ""
    label = _weights(averaged) if "weights" in info else "the only weights it holds"
    step = int(info.get("step", 0))
    shape = replace(shape_of(params), text_position=info.get("text_position"))
    return Source(kind, name, f"{name}: {text}, {label}", params, shape, step, averaged)


def _open_reference(path: Path, name: str, ema: bool, step: int | None) -> Source:
    checkpoint = read_reference_checkpoint(path)
    if step is not None and checkpoint["step"] != step:
        raise InputError(f"{name}: it holds step {checkpoint['step']}, not {step}")
    averaged = ema and "ema_params1" in checkpoint
    params = checkpoint["ema_params1" if averaged else "params"]
    text = f"{name}: checkpoint of the reference ({'Orbax' if path.is_dir() else 'msgpack'})"
    text += f" at step {checkpoint['step']}, {_weights(averaged)}{' (it holds no EMA)' * (ema and not averaged)}"
    return Source("reference", name, text, params, shape_of(params), checkpoint["step"], averaged, folder=path)


def _weights(ema: bool) -> str:
    return "EMA weights" if ema else "raw weights"
