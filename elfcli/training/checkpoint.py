"""Checkpoints with Orbax: written beside and renamed into place, `keep` deep, in parts that can be read alone.

A checkpoint holds the parts `params`, `ema` and `rest` (step, optimiser state, key, metric sums). Saving goes on
while training does; a checkpoint is sealed (integrity.py) when the next save starts, or at the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from elfcli.errors import ElfError, InputError
from elfcli.hub.pretrained import first_line
from elfcli.training import integrity
from elfcli.training.step import TrainState
from elfcli.ui.progress import is_first_process, say

CHECKPOINT_FOLDER = "checkpoints"


def open_checkpoints(run: Path, keep: int | None = None) -> ocp.CheckpointManager:
    """The run's checkpoints; close it (or use `with`) so that a save under way is finished."""
    if (run / CHECKPOINT_FOLDER).exists() and not (run / CHECKPOINT_FOLDER).is_dir():
        raise ElfError(f"{run / CHECKPOINT_FOLDER}: a file where the folder of checkpoints should be; move it away")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=True, create=keep is not None, read_only=keep is None
    )
    return ocp.CheckpointManager((run / CHECKPOINT_FOLDER).absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState) -> None:
    """Finishes and seals the save before, and starts saving `state`. The run's earlier checkpoints stay intact.

    ElfError says why a save failed, perhaps the one before.
    """
    finish(manager)
    rest = state._replace(params=None, ema=None)._asdict()
    parts = {"params": state.params, "ema": state.ema, "rest": rest}
    args = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in parts.items()})
    with told(manager):
        manager.save(int(state.step), args=args)


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for the save under way and seals the newest checkpoint; ElfError says why it could not be saved."""
    with told(manager):
        manager.wait_until_finished()
        newest = manager.latest_step()
        if newest is not None and is_first_process():
            integrity.seal(Path(manager.directory) / str(newest))


@contextmanager
def told(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns what saving raises into one line that names the last good checkpoint."""
    try:
        yield
    except Exception as error:  # a full disk is an OSError or, from TensorStore, a ValueError; Orbax has its own
        kept = [int(path.name) for path in Path(manager.directory).glob("*") if path.name.isdecimal()]
        good = f"that of step {max(kept)} is intact" if kept else "there is none before it"
        raise ElfError(
            f"{manager.directory}: the checkpoint could not be saved ({reason(error)}); {good}, and "
            "`elf resume` goes on from there"
        ) from error


def reason(error: BaseException) -> str:
    """The deepest cause's words: Orbax wraps what the system said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)[:300]


def restore_newest(
    manager: ocp.CheckpointManager, like: TrainState, fallback: bool = False
) -> tuple[TrainState, int] | None:
    """(state, step) of the newest checkpoint; None where there is none yet.

    ElfError where it is damaged, unless `fallback`: then the newest intact one is taken, what it costs is said, and
    the damaged ones are moved to `checkpoints/damaged-STEP`.
    """
    folder = Path(manager.directory)
    steps = sorted(manager.all_steps(), reverse=True)
    damaged: list[int] = []
    for step in steps:
        problem = integrity.damage(folder / str(step))
        if problem is None:
            try:
                state = restore(manager, like, step)
                break
            except ElfError as error:
                if integrity.is_sealed(folder / str(step)):  # intact, so the settings do not fit it
                    raise
                problem = str(error)
        if not fallback:
            raise ElfError(f"{problem}; nothing was changed, {way_on(folder, steps[len(damaged) + 1 :])}")
        say(f"warning: {problem}")
        damaged.append(step)
    else:
        if damaged:
            raise ElfError(f"{folder}: no checkpoint is intact ({len(damaged)} tried); nothing was changed")
        return None
    if is_first_process():
        for lost in damaged:
            (folder / str(lost)).rename(unused(folder / f"damaged-{lost}"))
    if damaged:
        manager.reload()
        say(f"warning: going on from step {step}; {damaged[0] - step} steps are lost and will be done again")
    return state, step


def way_on(folder: Path, older: list[int]) -> str:
    whole = [step for step in older if integrity.damage(folder / str(step)) is None]
    if not whole:
        return "and no earlier checkpoint is there"
    return f"`elf resume {folder.parent} --fallback` goes on from step {whole[0]}"


def unused(path: Path) -> Path:
    """The path, numbered where it is taken."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}-{number + 1}")
    return free


def restore(manager: ocp.CheckpointManager, like: TrainState, step: int) -> TrainState:
    """The state saved at `step`, with the shapes and shardings of `like`. ElfError where it cannot be read whole."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    parts = {
        "params": abstract.params,
        "ema": abstract.ema,
        "rest": abstract._replace(params=None, ema=None)._asdict(),
    }
    args = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in parts.items()})
    try:
        found = manager.restore(step, args=args)
    except Exception as error:  # Orbax and TensorStore raise many kinds
        where = manager.directory / str(step)
        raise ElfError(f"{where}: the checkpoint cannot be read ({first_line(error)[:300]})") from error
    return TrainState(**found["rest"] | {"params": found["params"], "ema": found["ema"]})


def load_weights(run: Path, *, ema: bool = True, step: int | None = None) -> tuple[dict, int]:
    """(weights as numpy arrays, step) of the newest checkpoint or of `step`; the moving average by default."""
    if not (run / CHECKPOINT_FOLDER).is_dir():
        raise InputError(f"{run}: this run has no checkpoint yet")
    name = "ema" if ema else "params"
    with open_checkpoints(run) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise InputError(f"{run}: this run has no checkpoint yet")
        if step is not None and step not in steps:
            raise InputError(f"{run}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
        step = steps[-1] if step is None else step
        path = Path(manager.directory) / str(step) / name
    problem = integrity.damage(path.parent, name)
    if problem:
        raise ElfError(f"{problem}: this checkpoint is damaged; give another step of {', '.join(map(str, steps))}")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.metadata(path).item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy)), step
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise ElfError(f"{path}: the checkpoint cannot be read ({first_line(error)})") from error
