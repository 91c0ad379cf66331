"""The length of a run in optimizer steps."""

from dataclasses import dataclass

from elfcli.config.schema import Config
from elfcli.data.batches import steps_per_epoch
from elfcli.errors import InputError


@dataclass(frozen=True)
class RunLength:
    """Lengths and intervals of a run in optimizer steps."""

    epoch_steps: float  # in an epoch
    total_steps: int
    warmup_steps: int
    save_steps: int  # between checkpoints; 0: only at the end
    eval_steps: int  # between evaluations, besides the one at the end; 0: online evaluation only at the end


def run_length(config: Config, num_examples: int) -> RunLength:
    """Return the length of a run on `num_examples`. Raise InputError if it is shorter than one step."""
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
    """Return the steps in `epochs`, rounded, at least one; 0 for 0 epochs."""
    return max(round(epochs * epoch_steps), 1) if epochs else 0
