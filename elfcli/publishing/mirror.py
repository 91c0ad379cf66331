"""Uploads new checkpoints to the repository `hub_repo` while a run trains. A failed upload never stops the run."""

import threading
from pathlib import Path
from typing import Any

from elfcli.errors import first_line
from elfcli.hub_access import hub_reachable, retrying
from elfcli.publishing.push import push
from elfcli.ui.progress import is_first_process, say


class Mirror:
    """An uploader of complete checkpoints, in a thread. Does nothing without a repository."""

    def __init__(self, repo: str | None, folder: Path):
        self.repo, self.folder = repo if is_first_process() else None, folder
        self.thread: threading.Thread | None = None
        self.sent: int | None = None

    def look(self, manager: Any) -> None:
        """Start to upload the newest checkpoint of Orbax's manager if it is complete and new and no upload runs."""
        busy = manager.is_saving_in_progress() or (self.thread is not None and self.thread.is_alive())
        if self.repo is None or busy or manager.latest_step() == self.sent:
            return
        self.sent = manager.latest_step()
        self.thread = threading.Thread(target=mirror, args=(self.folder, self.repo), name="mirror", daemon=True)
        self.thread.start()

    def finish(self, manager: Any) -> None:
        """Wait for the running upload, and upload the last checkpoint."""
        if self.repo is None:
            return
        manager.wait_until_finished()
        if self.thread is not None:
            self.thread.join()
        if not mirror(self.folder, self.repo):
            say(f"the last checkpoint is not on the Hub; `elf push-to-hub {self.folder} {self.repo}` uploads it")


def mirror(run: str | Path, repo: str) -> bool:
    """Upload the newest checkpoint (a new repository is private); report and return whether it succeeded."""
    try:
        from huggingface_hub import HfApi

        push(run, repo, private=hub_reachable() and not retrying(lambda: HfApi().repo_exists(repo)))
    except Exception as error:
        say(f"not mirrored to {repo}, trying again at the next checkpoint: {first_line(error)}")
        return False
    say(f"mirrored to {repo}")
    return True
