"""Contradictions between settings that are each valid alone."""

from collections.abc import Iterator
from typing import NamedTuple

from elfcli.config.schema import GAP_KINDS, Config


class Contradiction(NamedTuple):
    """A contradiction between the settings with these bare names.

    mild: the run works but is worse for it. A warning is enough if a preset set the first name, so that a short trial
    of a recipe (`--task de-en --steps 100`) does not have to set the warm-up.
    """

    names: tuple[str, ...]
    message: str
    mild: bool = False


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Yield every contradiction in `config`."""
    yield from _of_data(config)
    yield from _of_network(config)
    yield from _of_optimization(config)
    yield from _of_distillation(config)
    size, batch = config.objective.group_size, config.global_batch
    if size is not None and (batch % size or (size == 1 and batch > 1)):
        message = f"group_size {size} does not divide a batch of {batch} into equal groups of two or more examples"
        yield Contradiction(("group_size", "batch_size", "global_batch_size"), message)


def _of_data(config: Config) -> Iterator[Contradiction]:
    data, encoder = config.data, config.encoder
    if data.max_input_length >= data.max_length:
        message = (
            f"max_input_length {data.max_input_length} leaves no room for text in max_length {data.max_length}: "
            "decrease max_input_length or increase max_length"
        )
        yield Contradiction(("max_input_length", "max_length"), message)
    if data.gaps and (len(data.gaps) != len(GAP_KINDS) or abs(sum(data.gaps) - 1) > 1e-6):
        message = f"gaps {list(data.gaps)}: expected {len(GAP_KINDS)} shares ({', '.join(GAP_KINDS)}) that add up to 1"
        yield Contradiction(("gaps",), message)
    if data.gaps and data.pad_token != "eos":
        message = "gaps need pad_token=eos: from the padding a model learns where the last gap ends"
        yield Contradiction(("pad_token", "gaps"), message)
    if encoder.encoder_checkpoint is not None and encoder.encoder_model_name == "embedding":
        message = "encoder_checkpoint holds T5 weights, but encoder_model_name is 'embedding': remove one of them"
        yield Contradiction(("encoder_checkpoint", "encoder_model_name"), message)


def _of_network(config: Config) -> Iterator[Contradiction]:
    hidden, heads = config.network.hidden_size, config.network.num_heads
    if hidden % heads:
        message = f"hidden_size {hidden} is not divisible by num_heads {heads}"
        yield Contradiction(("hidden_size", "num_heads"), message)
    elif hidden // heads % 2:
        message = (
            f"hidden_size {hidden} / num_heads {heads} is an odd head size, {hidden // heads}, "
            "but rotary embeddings rotate pairs: choose an even head size"
        )
        yield Contradiction(("hidden_size", "num_heads"), message)
    low, high = config.objective.self_cond_cfg_min, config.objective.self_cond_cfg_max
    if low > high:
        message = f"self_cond_cfg_min {low:g} is above self_cond_cfg_max {high:g}"
        yield Contradiction(("self_cond_cfg_min", "self_cond_cfg_max"), message)


def _of_optimization(config: Config) -> Iterator[Contradiction]:
    optimization, steps, epochs = config.optimization, config.training.steps, config.training.epochs
    lr, min_lr = optimization.lr, optimization.min_lr
    if lr is not None and min_lr > lr:
        yield Contradiction(("min_lr", "lr"), f"min_lr {min_lr:g} is above lr {lr:g}, where the schedule starts")
    if lr is None and optimization.lr_schedule == "cosine" and min_lr > config.peak_lr:
        message = f"min_lr {min_lr:g} is above the peak learning rate {config.peak_lr:g} that follows from blr"
        yield Contradiction(("min_lr", "blr", "lr", "batch_size", "global_batch_size"), message)
    if steps is not None and optimization.warmup_steps > steps:
        message = f"warmup_steps {optimization.warmup_steps} is more than the {steps} steps of the whole run"
        yield Contradiction(("warmup_steps", "steps"), message, mild=True)
    if steps is None and optimization.warmup_steps < 0 and optimization.warmup_epochs > epochs:
        message = f"warmup_epochs {optimization.warmup_epochs:g} is more than the {epochs:g} epochs of the run"
        yield Contradiction(("warmup_epochs", "epochs"), message, mild=True)


def _of_distillation(config: Config) -> Iterator[Contradiction]:
    settings = config.distillation
    whole = settings.teacher_steps
    possible = ", ".join(str(steps) for steps in range(1, whole + 1) if whole % steps == 0)
    for name, counts in {"rounds": settings.rounds, "student_steps": (settings.student_steps or 1,)}.items():
        wrong = [steps for steps in counts if whole % steps]
        if wrong:
            message = f"{name} {wrong[0]} does not divide the teacher's {whole} steps (teacher_steps): use {possible}"
            yield Contradiction((name, "teacher_steps"), message)
    if not settings.rounds or len(set(settings.rounds)) < len(settings.rounds):
        yield Contradiction(("rounds",), f"rounds {list(settings.rounds)}: expected one or more different numbers")
    if settings.distill_objective != "progressive":
        yield from _of_generator(config)
    if settings.student_steps is not None and settings.teacher is None:
        yield Contradiction(("student_steps", "teacher"), "student_steps without a teacher: `elf distill` sets both")


def _of_generator(config: Config) -> Iterator[Contradiction]:
    settings, what = config.distillation, f"distill_objective {config.distillation.distill_objective}"
    if not config.objective.self_cond_prob:
        message = "its passes see their last estimate, but the teacher was trained without self-conditioning " \
                  "(self_cond_prob 0): use progressive"  # fmt: skip
        yield Contradiction(("distill_objective", "self_cond_prob"), f"{what}: {message}")
    if config.data.max_input_length:
        message = "is for free text, but this model has sources (max_input_length): use progressive"
        yield Contradiction(("distill_objective", "max_input_length"), f"{what} {message}")
    layer, depth = settings.feature_block(config.network.depth), config.network.depth
    if layer >= depth:
        message = f"feature_layer {layer}: the network has {depth} blocks, 0 to {depth - 1}"
        yield Contradiction(("feature_layer", "depth"), message)
    if settings.kernel_pairs == "texts" and settings.kernel_texts == 1:
        message = "kernel_pairs texts compares tokens of different texts, but kernel_texts is 1: use 2 or more"
        yield Contradiction(("kernel_pairs", "kernel_texts"), message)
    if len(settings.stage_steps) not in (1, 2):
        message = f"stage_steps {list(settings.stage_steps)}: expected one number (mmd) or two (mmd and ird)"
        yield Contradiction(("stage_steps",), message)


def check_devices(config: Config, num_devices: int) -> list[str]:
    """Return the problems of `config` on `num_devices` devices (over all processes), one line each."""
    batch = config.global_batch
    if batch % num_devices == 0:
        return []
    name = "global_batch_size" if config.training.global_batch_size is not None else "batch_size"
    near = max(batch // num_devices, 1) * num_devices
    return [f"{name}: {num_devices} devices cannot share {batch} examples evenly: use a multiple, for example {near}"]
