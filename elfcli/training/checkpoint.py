"""Checkpoints with Orbax: written beside and renamed into place, `keep` deep, in parts that can be read alone.

A checkpoint holds the parts `params`, `ema` and `rest` (step, optimiser state, key, metric sums).
"""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from elfcli.errors import ElfError, InputError
from elfcli.hub.pretrained import first_line
from elfcli.training.step import TrainState

CHECKPOINT_FOLDER = "checkpoints"


def open_checkpoints(run: Path, keep: int | None = None) -> ocp.CheckpointManager:
    """The run's checkpoints; close it (or use `with`) so that a save under way is finished."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=True, create=keep is not None, read_only=keep is None
    )
    return ocp.CheckpointManager((run / CHECKPOINT_FOLDER).absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState) -> None:
    """Starts saving `state`; ElfError says why it could not be done. The run's earlier checkpoints stay intact."""
    rest = state._replace(params=None, ema=None)._asdict()
    parts = {"params": state.params, "ema": state.ema, "rest": rest}
    args = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in parts.items()})
    try:
        manager.save(int(state.step), args=args)
    except (OSError, ValueError) as error:
        raise ElfError(f"{manager.directory}: the checkpoint could not be saved ({first_line(error)})") from None


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
        raise ElfError(
            f"{where}: the checkpoint cannot be read ({first_line(error)}); nothing was changed"
        ) from error
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
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.metadata(path).item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy)), step
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise ElfError(f"{path}: the checkpoint cannot be read ({first_line(error)})") from error
