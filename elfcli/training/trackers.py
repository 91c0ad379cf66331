"""Trackers that log the figures of metrics.jsonl: wandb, trackio or tensorboard."""

from collections.abc import Callable
from pathlib import Path

from elfcli.config.schema import Config
from elfcli.errors import InputError
from elfcli.ui.progress import is_first_process


def open_tracker(config: Config, folder: Path) -> Callable[[int, dict], None]:
    """Return `track(step, figures)` of the configured tracker. Raises InputError if it is not installed."""
    kind, tracking = config.tracking.tracker, config.tracking
    if kind == "none" or not is_first_process():
        return lambda step, figures: None
    name = tracking.wandb_run_name or folder.name
    project = tracking.wandb_project or "elf"
    settings = config.model_dump(mode="json", exclude={"tracking"})
    try:
        if kind == "tensorboard":
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"))

            def track(step: int, figures: dict) -> None:
                for key, value in figures.items():
                    writer.add_scalar(key, value, step)

            return track
        if kind == "trackio":
            import trackio

            # By its name a resumed run continues the same record; trackio's default begins another one.
            board = trackio.init(project=project, name=name, config=settings, resume="allow")
        else:
            import wandb

            # The folder's name is the id, so that a resumed run continues the same record.
            tags = [tracking.wandb_tag] if tracking.wandb_tag else None
            board = wandb.init(
                project=project, entity=tracking.wandb_entity, name=name, id=name, tags=tags, resume="allow",
                dir=str(folder), config=settings,
            )  # fmt: skip
    except ImportError:
        raise InputError(
            f"tracker {kind} is not installed; `pip install 'elfcli[{kind}]'`, or set tracker=none"
        ) from None
    return lambda step, figures: board.log(figures, step=step)
