"""Downloads checkpoints from the Hub, only the files that are needed; without a network, takes them from the cache."""

from functools import partial
from pathlib import Path

from elfcli.errors import InputError
from elfcli.hub_access import from_hub, hub_reachable, retrying
from elfcli.runs.folder import CONFIG_FILE, chosen_step
from elfcli.weights.names import WEIGHTS_FILE, checkpoint_paths


def hub_checkpoint(name: str, step: int | None = None) -> Path:
    """Return a folder with the newest checkpoint, or that of `step`, of a Hub repository `org/name[@revision]`."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repo, _, revision = name.partition("@")
    download = partial(snapshot_download, repo, revision=revision or None)
    with from_hub(f"{name}:"):
        try:
            if not hub_reachable():
                return Path(download(local_files_only=True))
            files = retrying(lambda: HfApi().list_repo_files(repo, revision=revision or None))
            needed = files_to_fetch(name, files, step)
            return Path(retrying(lambda: download(allow_patterns=needed)))
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
