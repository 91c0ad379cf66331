"""Saves and restores checkpoints with Orbax, which writes a temporary folder and renames it. A checkpoint has three
parts that can be read separately: `params`, `ema` and `rest` (step, optimizer state, key, metric sums). Saving is
asynchronous; a checkpoint is sealed (seal.py) when the next save starts, or at the end."""

import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from elfcli.errors import ElfError, InputError, Stopped, first_line
from elfcli.outputs import write_whole
from elfcli.parallel.agree import barrier, broadcast_from_first
from elfcli.runs import seal
from elfcli.runs.folder import BEST_FILE, CHECKPOINT_FOLDER, best_of, checkpoint_steps, chosen_step
from elfcli.runs.state import TrainState
from elfcli.ui.progress import is_first_process, say

CHECKPOINT_PARTS = ("params", "ema", "rest")
SEALER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seal")


@dataclass(frozen=True)
class Best:
    """Orbax's policy that preserves the checkpoint of `best.json`."""

    run: Path

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Return for each checkpoint whether it must be kept."""
        best = best_of(self.run)
        return [best is not None and checkpoint.step == best["step"] for checkpoint in checkpoints]


class RankingMetric(NamedTuple):
    """A value that checkpoints are ranked by. larger: whether a larger value is better."""

    name: str
    value: float
    larger: bool


@contextmanager
def opened(run: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Yield a manager that keeps the newest `keep` checkpoints and that of `best.json`, and finish the last save."""
    if (run / CHECKPOINT_FOLDER).exists() and not (run / CHECKPOINT_FOLDER).is_dir():
        raise ElfError(f"{run / CHECKPOINT_FOLDER}: a file, but this is the folder of checkpoints; move it away")
    several = ocp.options.AsyncOptions(barrier_sync_fn=wait_for_others) if jax.process_count() > 1 else None
    policy = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), Best(run)])
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy, enable_async_checkpointing=True, create=True, async_options=several
    )
    manager = ocp.CheckpointManager((run / CHECKPOINT_FOLDER).absolute(), options=options)
    try:
        yield manager
    except BaseException as error:
        # Closing would wait for the other processes, which do not know yet that this one failed.
        if jax.process_count() == 1 or isinstance(error, Stopped):
            manager.close()
        raise
    manager.close()


def wait_for_others(*, key: str, timeout_ms: int) -> None:
    """Wait as the barrier of Orbax's threads, or raise the error if this process's save has failed."""
    if (failed := sys.exc_info()[1]) is not None:
        raise failed
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def save(manager: ocp.CheckpointManager, state: TrainState, replaces: bool) -> None:
    """Finish the previous save, and start saving `state`. Raise ElfError if one of the two fails. Another thread seals
    the previous checkpoint, because hashing large ones takes seconds; replaces: not if Orbax deletes it meanwhile."""
    args = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in parts_of(state).items()})
    with save_errors(manager):
        manager.wait_until_finished()
        sealing = seal_newest(manager)
        if sealing is not None and replaces:
            sealing.result()
        manager.save(int(state.step), args=args)


def keep_best(manager: ocp.CheckpointManager, state: TrainState, found: RankingMetric | None) -> None:
    """Save `state` and record it in `best.json` if it is better than the one recorded there. The record is written once
    the checkpoint is complete, so that it always names one that can be read."""
    run, step = Path(manager.directory).parent, int(state.step)

    def is_better() -> bool:
        before = best_of(run)
        if found is None or not math.isfinite(found.value):
            return False
        if before is None or before["figure"] != found.name or before["step"] == step:
            return True
        return found.value > before["value"] if found.larger else found.value < before["value"]

    if not broadcast_from_first(is_better):
        return
    if manager.latest_step() != step:
        save(manager, state, replaces=True)
    finish(manager)
    if found is not None and is_first_process():
        record = {"step": step, "figure": found.name, "value": found.value}
        write_whole(run / BEST_FILE, json.dumps(record) + "\n")


def parts_of(state: TrainState) -> dict[str, Any]:
    """Return the state as the parts of a checkpoint."""
    return {"params": state.params, "ema": state.ema, "rest": state._replace(params=None, ema=None)._asdict()}


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait for the current save and seal the newest checkpoint. Raise ElfError if it could not be saved."""
    with save_errors(manager):
        manager.wait_until_finished()
        if (sealing := seal_newest(manager)) is not None:
            sealing.result()


def seal_newest(manager: ocp.CheckpointManager) -> Future | None:
    """Start to seal the newest checkpoint after those before it; None if there is none, or in another process than 0.
    Sealing twice does nothing, so waiting for the last one is enough."""
    newest = manager.latest_step()
    if newest is None or not is_first_process():
        return None
    return SEALER.submit(seal.seal, Path(manager.directory) / str(newest))


@contextmanager
def save_errors(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turn any error of saving into an ElfError that names the last good checkpoint."""
    try:
        yield
    except Exception as error:  # a full disk is an OSError or, from TensorStore, a ValueError; Orbax has its own
        steps = checkpoint_steps(Path(manager.directory).parent)
        advice = (f"step {max(steps)} is intact, and `elf resume` continues from it" if steps else
                  "there is no earlier checkpoint")  # fmt: skip
        raise ElfError(f"{manager.directory}: the checkpoint could not be saved ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """Return the text of the innermost cause, because Orbax wraps the system's errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)[:300]


def restore_newest(manager: ocp.CheckpointManager, fallback: bool, like: TrainState) -> tuple[TrainState, int] | None:
    """Return (state, step) of the newest checkpoint, sharded like `like`; None without one. Raise ElfError for damage;
    with `fallback` warn, restore the newest intact one, and rename the damaged ones to `checkpoints/damaged-STEP`."""
    folder = Path(manager.directory)
    step, damaged = broadcast_from_first(
        lambda: newest_intact(folder, sorted(manager.all_steps(), reverse=True), fallback)
    )
    if step is None:
        return None
    state = restore(manager, like, step)
    if is_first_process():
        for lost in damaged:
            (folder / str(lost)).rename(unused(folder / f"damaged-{lost}"))
    if damaged:
        barrier()
        manager.reload()
        say(f"warning: continuing from step {step}; {damaged[0] - step} steps are lost and will be repeated")
    return state, step


def newest_intact(folder: Path, steps: list[int], fallback: bool) -> tuple[int | None, list[int]]:
    """Return (first of `steps` that is intact, damaged ones before it), (None, []) if there are no steps."""
    damaged: list[int] = []
    for step in steps:
        problem = seal.damage(folder / str(step)) or unreadable(folder / str(step))
        if problem is None:
            return step, damaged
        if not fallback:
            older = [other for other in steps[steps.index(step) + 1 :] if seal.damage(folder / str(other)) is None]
            advice = (f"`elf resume {folder.parent} --fallback` continues from step {older[0]}" if older else
                      "there is no earlier checkpoint")  # fmt: skip
            raise ElfError(f"{problem}; nothing was changed; {advice}")
        say(f"warning: {problem}")
        damaged.append(step)
    if damaged:
        raise ElfError(f"{folder}: no checkpoint is intact ({len(damaged)} tried); nothing was changed")
    return None, []


def unreadable(checkpoint: Path) -> str | None:
    """Read a checkpoint that was never sealed, and return its problem; None for an intact or a sealed one."""
    if seal.is_sealed(checkpoint):
        return None
    try:
        for part in CHECKPOINT_PARTS:
            read_without_barriers(checkpoint / part)
    except ElfError as error:
        return str(error)
    return None


def unused(path: Path) -> Path:
    """Return the path, with a number appended if it exists already."""
    candidates = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())


def restore(manager: ocp.CheckpointManager, like: TrainState, step: int) -> TrainState:
    """Return the state saved at `step`, with the shapes and shardings of `like`. Raise ElfError if it is damaged."""
    parts = parts_of(like)
    args = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in parts.items()})
    with read_errors(manager.directory / str(step)):
        parts = manager.restore(step, args=args)
    state = TrainState(**parts["rest"] | {"params": parts["params"], "ema": parts["ema"]})
    leaves, tree = jax.tree.flatten(state)
    del parts, state
    if jax.default_backend() == "cpu":  # some leaves are numpy's memory, which a step cannot reuse: copy one by one
        for number, leaf in enumerate(leaves):
            leaves[number] = jax.device_put(leaf, leaf.sharding, may_alias=False)
    return jax.tree.unflatten(tree, leaves)


def load_weights(run: Path, *, ema: bool = True, step: int | None = None) -> tuple[dict, int]:
    """Return (weights as numpy arrays, step) of the newest checkpoint or of `step`. ema: their moving average."""
    if not (steps := checkpoint_steps(run)):
        raise InputError(f"{run}: this run has no checkpoint yet")
    step = chosen_step(run, steps, step)
    path = (run / CHECKPOINT_FOLDER / str(step) / ("ema" if ema else "params")).absolute()
    if problem := seal.damage(path.parent, path.name):
        raise ElfError(f"{problem}: this checkpoint is damaged; choose another step of {', '.join(map(str, steps))}")
    return read_without_barriers(path), step


def read_without_barriers(path: Path, names: Sequence[str] | None = None) -> dict:
    """Return a checkpoint's part (or entries of it) as numpy arrays, without other processes, or raise ElfError."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with read_errors(path), ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        wanted = {name: tree[name] for name in (tree if names is None else names) if name in tree}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        item = jax.tree.map(lambda _: 0, wanted)
        args = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
        return checkpointer.restore(path, args=args)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn any error of reading a checkpoint into an ElfError."""
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise ElfError(f"{path}: the checkpoint cannot be read ({first_line(error)[:300]})") from error
