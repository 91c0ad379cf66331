"""The length of a run in optimiser steps."""

from dataclasses import dataclass

from elfcli.config.schema import Config
from elfcli.data.batches import steps_per_epoch
from elfcli.errors import InputError


@dataclass(frozen=True)
class RunLength:
    epoch_steps: float  # optimiser steps in an epoch
    total_steps: int
    warmup_steps: int
    save_steps: int  # between checkpoints; 0: only at the end
    eval_steps: int  # between evaluations, of which another one comes at the end; 0: online ones at the end alone


def run_length(config: Config, num_examples: int) -> RunLength:
    """The length of a run on `num_examples`. InputError where it is less than a step."""
    training, optimization = config.training, config.optimization
    epoch_steps = steps_per_epoch(num_examples, config.global_batch) / optimization.grad_accum_steps
    total = training.steps or int(training.epochs * epoch_steps)
    if total < 1:
        raise InputError(f"{training.epochs:g} epochs of {epoch_steps:g} steps are less than one step; raise epochs")
    warmup = optimization.warmup_steps
    if warmup < 0:
        warmup = round(optimization.warmup_epochs * epoch_steps)
    save = training.save_every_steps or steps_between(training.save_every_epochs, epoch_steps)
    return RunLength(epoch_steps, total, warmup, save, steps_between(training.eval_every_epochs, epoch_steps))


def steps_between(epochs: float, epoch_steps: float) -> int:
    """The steps of so many epochs, rounded, at least one; 0 for 0 epochs."""
    return max(round(epochs * epoch_steps), 1) if epochs else 0
