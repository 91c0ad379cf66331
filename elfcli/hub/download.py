"""Fetching checkpoints from the Hub: only the files that are needed, from the cache where there is no network."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from elfcli.data.datasets import hub_reachable
from elfcli.errors import InputError
from elfcli.hub.layout import CONFIG_FILE, WEIGHTS_FILE, checkpoint_paths
from elfcli.hub.pretrained import first_line

T = TypeVar("T")
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts."""


def status_of(error: BaseException | None) -> int | None:
    """HTTP status of an error or of what caused it."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status
        error = error.__cause__ or error.__context__
    return None


def is_passing(error: BaseException | None) -> bool:
    """Whether an error may be gone at the next attempt: a server's 5xx, too many requests, a cut connection."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    while error is not None:
        if type(error).__module__.startswith("httpx") or isinstance(error, (ConnectionError, TimeoutError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def retrying(action: Callable[[], T], report: Callable[[str], None] = lambda line: None, waits=WAITS) -> T:
    """The action's result; after a passing error it is tried again, and `report` is told."""
    for wait in (*waits, None):
        try:
            return action()
        except Exception as error:
            if wait is None or not is_passing(error):
                raise
            report(f"the Hub failed ({first_line(error)}); trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError("unreachable")


def hub_checkpoint(name: str, step: int | None = None) -> Path:
    """Folder with the checkpoint of a Hub repository `org/name[@revision]`: the newest, or that of `step`."""
    repo, _, revision = name.partition("@")
    if not hub_reachable():
        return cached_snapshot(name, repo, revision or "main")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        files = retrying(lambda: HfApi().list_repo_files(repo, revision=revision or None))
        wanted = files_to_fetch(name, files, step)
        return Path(retrying(lambda: snapshot_download(repo, revision=revision or None, allow_patterns=wanted)))
    except InputError:
        raise
    except RevisionNotFoundError:
        raise InputError(f"{name}: the repository {repo} has no revision '{revision}'") from None
    except RepositoryNotFoundError:
        raise InputError(f"{name}: no such folder here and no such repository on the Hub, or it is private: check "
                         "the name, or log in with `hf auth login`") from None  # fmt: skip
    except Exception as error:  # the client raises its own, HTTP's and the file system's errors
        raise InputError(f"{name}: cannot be had from the Hub ({first_line(error)})") from None


def files_to_fetch(name: str, files: list[str], step: int | None) -> list[str]:
    """Files of a repository that make one checkpoint. InputError where there is none."""
    if {CONFIG_FILE, WEIGHTS_FILE} <= set(files):
        chosen = f"checkpoints/{step}/"
        return [file for file in files if not file.startswith("checkpoints/") or file.startswith(chosen)]
    found = checkpoint_paths(files)
    if found:
        if step is not None and step not in found:
            raise InputError(f"{name}: no checkpoint of step {step}; there are {', '.join(map(str, sorted(found)))}")
        newest = found[max(found) if step is None else step]
        return [file for file in files if file == newest or file.startswith(f"{newest}/")]
    weights = [file for file in files if file.endswith((".safetensors", ".pt", ".pth"))]
    if len(weights) == 1:
        return weights
    raise InputError(f"{name}: this repository holds no ELF checkpoint (neither {WEIGHTS_FILE} with {CONFIG_FILE}, "
                     "nor checkpoint_<step>, nor one file of weights)")  # fmt: skip


def cached_snapshot(name: str, repo: str, revision: str) -> Path:
    """The folder that an earlier download left in the cache. InputError where there is none."""
    from huggingface_hub import constants

    storage = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    ref = storage / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    snapshot = storage / "snapshots" / commit
    if not snapshot.is_dir():
        raise InputError(f"{name}: no such folder here, not in the cache, and the Hugging Face Hub cannot be "
                         "reached; give --checkpoint a local folder or file")  # fmt: skip
    return snapshot
