"""Publishes a run on the Hub: exports to a temporary folder, lists the files, uploads, and retries failed requests.
`push` is the work of `elf push-to-hub`; mirror.py calls it while a run trains."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, validate_repo_id

from elfcli.errors import ElfError, InputError, first_line
from elfcli.hub_access import hub_reachable, retrying, status_of
from elfcli.publishing.export import ALLOWED, ExportOptions, export, refuse_secrets
from elfcli.ui.progress import console
from elfcli.weights.names import is_exported
from elfcli.weights.open import open_source
from elfcli.weights.settings import config_of

TOKEN_PAGE = "https://huggingface.co/settings/tokens"
GET_TOKEN = f"create one with write access at {TOKEN_PAGE}, then `hf auth login` or set HF_TOKEN"

Report = Callable[[str], None]


def push(
    run: str | Path, repo: str, *, private: bool = False, revision: str | None = None,
    options: ExportOptions = ExportOptions(), report: Report = lambda line: None,
) -> str:  # fmt: skip
    """Upload a run's newest EMA weights with all that sampling needs, or a folder of `elf export`; return the address.
    Files that are on the Hub are not sent again: the same call continues an interrupted upload. Raise InputError for a
    wrong token, name or permission, ElfError if the Hub keeps failing."""
    with explained(repo):
        validate_repo_id(repo)
    if get_token() is None:
        raise InputError(f"no Hugging Face token: {GET_TOKEN}")
    source = open_source(run)
    if not hub_reachable():
        raise ElfError(f"the Hugging Face Hub cannot be reached to publish {repo}; `elf export {run} DIR` writes the "
                       "same files to a local folder")  # fmt: skip
    with explained(repo):
        retrying(HfApi().whoami, report)
    with tempfile.TemporaryDirectory(prefix="elf-push-") as scratch:
        if is_exported(Path(run)):  # unchanged, since its owner may have edited the card
            folder = Path(run)
            refuse_secrets(folder)
        else:
            folder = export(source, config_of(source), Path(scratch) / "model", replace(options, name=repo))
        report(source.description)
        with explained(repo):
            return upload(folder, repo, private, revision, f"Step {source.step}", report)


def files_to_upload(folder: Path) -> list[Path]:
    """Return the files of an exported folder that may be uploaded (ALLOWED)."""
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [file for file in files if any(fnmatch(file.as_posix(), pattern) for pattern in ALLOWED)]


def upload(folder: Path, repo: str, private: bool, revision: str | None, message: str, report: Report) -> str:
    """Report the files, create the repository and the branch if they are missing, upload, and return the address."""
    api, sizes = HfApi(), {file.as_posix(): (folder / file).stat().st_size for file in files_to_upload(folder)}
    where = repo + (f"@{revision}" if revision else "") + (" (private)" if private else "")
    report(f"uploading {len(sizes)} files, {sum(sizes.values()):,} bytes, to {where}:")
    for file, size in sizes.items():
        report(f"{size:>14,}  {file}")
    repo = retrying(lambda: api.create_repo(repo, private=private or None, exist_ok=True), report).repo_id
    if private and not retrying(lambda: api.model_info(repo), report).private:
        raise InputError(f"{repo} exists and is public, so --private is not possible; make it private on the Hub "
                         "first, or choose another name")  # fmt: skip
    if revision and revision != "main":
        retrying(lambda: api.create_branch(repo, branch=revision, exist_ok=True), report)
    if console.is_terminal and threading.current_thread() is threading.main_thread():
        enable_progress_bars()
    else:
        disable_progress_bars()
    send = partial(api.upload_folder, repo_id=repo, folder_path=folder, revision=revision, allow_patterns=list(sizes))
    return str(retrying(lambda: send(commit_message=message), report).commit_url)


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turn any error of the Hub into an ElfError of one line."""
    try:
        yield
    except ElfError:
        raise
    except HFValidationError as error:
        raise InputError(f"'{repo}' is not a repository name: expected ORG/NAME ({first_line(error)})") from error
    except Exception as error:  # the client raises its own, HTTP's and the file system's errors
        known = {
            401: f"the Hub refuses the token: {GET_TOKEN}",
            403: f"the token may not write to {repo}: use one with write access to it ({TOKEN_PAGE})",
            404: f"{repo}: not found on the Hub, or the token may not see it",
        }
        if text := known.get(status_of(error) or 0):
            raise InputError(text) from error
        raise ElfError(f"{repo}: the upload failed ({first_line(error)}); the same command continues it") from error
