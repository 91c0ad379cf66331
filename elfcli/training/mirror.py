"""Keeps the Hub repository of `hub_repo` up to date while a run trains; what fails there never stops the run."""

import threading
from pathlib import Path

from elfcli.hub.push import mirror, mirror_in_background
from elfcli.ui.progress import is_first_process, say


class Mirror:
    """Sends complete checkpoints in a thread; does nothing where there is no repository."""

    def __init__(self, repo: str | None, folder: Path):
        self.repo, self.folder = repo if is_first_process() else None, folder
        self.thread: threading.Thread | None = None
        self.sent: int | None = None

    def look(self, manager) -> None:
        """Starts sending the newest checkpoint, if it is complete and new and nothing is under way."""
        if self.repo is None or manager.is_saving_in_progress():
            return
        newest = manager.latest_step()
        if newest == self.sent or (self.thread is not None and self.thread.is_alive()):
            return
        self.thread = mirror_in_background(self.thread, self.folder, self.repo, report=say)
        self.sent = newest

    def finish(self, manager) -> None:
        """Waits for what is under way and sends the last checkpoint."""
        if self.repo is None:
            return
        manager.wait_until_finished()
        if self.thread is not None:
            self.thread.join()
        if not mirror(self.folder, self.repo, report=say):
            say(f"the last checkpoint is not on the Hub; `elf push-to-hub {self.folder} {self.repo}` sends it")
