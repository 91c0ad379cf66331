"""Publishing a run on the Hub: export to a temporary folder, tell what goes, upload; failures are tried again.

`push` is what `elf push-to-hub` does; `mirror` and `mirror_in_background` are for the training loop and never raise.
"""

import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from elfcli.data.download import WAITS, hub_reachable, retrying, status_of
from elfcli.errors import ElfError, InputError, first_line
from elfcli.hub.export import ALLOWED, ExportOptions, export, kept_steps, refuse_secrets
from elfcli.hub.names import is_exported
from elfcli.hub.sources import config_of, open_source

TOKEN_PAGE = "https://huggingface.co/settings/tokens"


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    all_checkpoints: bool = False,
    options: ExportOptions | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> str:
    """Uploads a run's newest EMA weights (or every kept checkpoint too) with all that sampling needs, or a folder of
    `elf export` as it is.

    Returns the address of the upload. Says what it uploads through `report` before it does. What is on the Hub
    already is not sent again, so an interrupted upload is continued by calling again. InputError for a missing or
    wrong token, a name or a right that is lacking; ElfError where the Hub keeps failing.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise explained(error, repo) from None
    if get_token() is None:
        raise InputError(
            f"no Hugging Face token: make one with write access at {TOKEN_PAGE}, then `hf auth login` or set HF_TOKEN"
        )
    source, api = open_source(run), HfApi()
    if not hub_reachable():
        raise ElfError(f"the Hugging Face Hub cannot be reached to publish {repo}; `elf export {run} DIR` writes the "
                       "same files here")  # fmt: skip
    try:
        retrying(api.whoami, report)
    except Exception as error:
        raise explained(error, repo) from error
    with tempfile.TemporaryDirectory(prefix="elf-push-") as scratch:
        if is_exported(Path(run)):  # as it is, with what its owner may have written into the card
            folder = Path(run)
            refuse_secrets(folder)
        else:
            steps = kept_steps(Path(run)) if all_checkpoints else ()
            named = replace(options or ExportOptions(), name=repo, steps=steps)
            folder = export(source, config_of(source), Path(scratch) / "model", named)
        report(source.description)
        tell(folder, repo, private, revision, report)
        try:
            return upload(api, folder, repo, private, revision, f"Step {source.step}", report)
        except (ElfError, KeyboardInterrupt):
            raise
        except Exception as error:  # the client raises its own, HTTP's and the file system's errors
            raise explained(error, repo) from error


def files_to_upload(folder: Path) -> list[Path]:
    """Files of an exported folder, by the list of what may be uploaded."""
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [file for file in files if any(fnmatch(file.as_posix(), pattern) for pattern in ALLOWED)]


def tell(folder: Path, repo: str, private: bool, revision: str | None, report: Callable[[str], None]) -> None:
    """Says what will be uploaded, file by file."""
    files = files_to_upload(folder)
    sizes = [(folder / file).stat().st_size for file in files]
    where = repo + (f"@{revision}" if revision else "") + (" (private)" if private else "")
    report(f"uploading {len(files)} files, {sum(sizes):,} bytes, to {where}:")
    for file, size in zip(files, sizes, strict=True):
        report(f"{size:>14,}  {file.as_posix()}")


def upload(api, folder: Path, repo: str, private: bool, revision: str | None, message: str, report) -> str:
    """Creates the repository (and branch) where missing and uploads; returns the commit's address."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    from elfcli.ui.progress import console

    repo = retrying(lambda: api.create_repo(repo, private=private or None, exist_ok=True), report).repo_id
    if private and not retrying(lambda: api.model_info(repo), report).private:
        raise InputError(f"{repo} exists and is public, so --private cannot hold; make it private on the Hub first, "
                         "or give another name")  # fmt: skip
    if revision and revision != "main":
        retrying(lambda: api.create_branch(repo, branch=revision, exist_ok=True), report)
    allowed = [file.as_posix() for file in files_to_upload(folder)]
    if console.is_terminal and threading.current_thread() is threading.main_thread():
        enable_progress_bars()
    else:
        disable_progress_bars()
    commit = retrying(
        lambda: api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, allow_patterns=allowed, commit_message=message
        ),
        report,
        WAITS,
    )
    return str(commit.commit_url)


def explained(error: Exception, repo: str) -> ElfError:
    """One line for what went wrong with the Hub."""
    status = status_of(error)
    if status == 401:
        return InputError(f"the Hub refuses the token: make one with write access at {TOKEN_PAGE}, then "
                          "`hf auth login` or set HF_TOKEN")  # fmt: skip
    if status == 403:
        return InputError(f"the token may not write to {repo}: use one with write access to it ({TOKEN_PAGE})")
    if type(error).__name__ == "HFValidationError":
        return InputError(f"'{repo}' is no repository name: expected ORG/NAME ({first_line(error)})")
    if status == 404:
        return InputError(f"{repo}: not found on the Hub, or the token may not see it")
    return ElfError(f"{repo}: the upload failed ({first_line(error)}); the same command continues it")
