"""Uploads new checkpoints to the repository `hub_repo` while a run trains; failures there never stop the run."""

import threading
from collections.abc import Callable
from pathlib import Path

from elfcli.errors import first_line
from elfcli.hub_access import hub_reachable, retrying
from elfcli.publishing.push import push
from elfcli.ui.progress import is_first_process, say


class Mirror:
    """Uploads complete checkpoints in a thread; does nothing without a repository."""

    def __init__(self, repo: str | None, folder: Path):
        self.repo, self.folder = repo if is_first_process() else None, folder
        self.thread: threading.Thread | None = None
        self.sent: int | None = None

    def look(self, manager) -> None:
        """Starts to upload the newest checkpoint, if it is complete and new and no upload is running."""
        if self.repo is None or manager.is_saving_in_progress():
            return
        newest, running = manager.latest_step(), self.thread is not None and self.thread.is_alive()
        if newest != self.sent and not running:
            self.thread = mirror_in_background(self.thread, self.folder, self.repo, report=say)
            self.sent = newest

    def finish(self, manager) -> None:
        """Waits for the running upload and uploads the last checkpoint."""
        if self.repo is None:
            return
        manager.wait_until_finished()
        if self.thread is not None:
            self.thread.join()
        if not mirror(self.folder, self.repo, report=say):
            say(f"the last checkpoint is not on the Hub; `elf push-to-hub {self.folder} {self.repo}` sends it")


def mirror(run: str | Path, repo: str, *, report: Callable[[str], None] = lambda line: None) -> bool:
    """Uploads the run's newest checkpoint; returns whether that succeeded.

    A new repository is made private. Never raises: a failure is reported in one line, and the next call uploads the
    checkpoint that is newest then.
    """
    try:
        from huggingface_hub import HfApi

        push(run, repo, private=hub_reachable() and not retrying(lambda: HfApi().repo_exists(repo)))
    except Exception as error:
        report(f"not mirrored to {repo}, trying again at the next checkpoint: {first_line(error)}")
        return False
    report(f"mirrored to {repo}")
    return True


def mirror_in_background(previous: threading.Thread | None, run: str | Path, repo: str, **settings) -> threading.Thread:
    """Starts `mirror` in a daemon thread and returns the thread; if `previous` still runs, returns that instead."""
    if previous is not None and previous.is_alive():
        return previous
    thread = threading.Thread(target=mirror, args=(run, repo), kwargs=settings, name="mirror", daemon=True)
    thread.start()
    return thread
