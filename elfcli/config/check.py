"""Contradictions between settings that are each fine on their own."""

from typing import NamedTuple

from elfcli.config.schema import Config


class Contradiction(NamedTuple):
    """`names` are the bare names involved.

    `mild`: the run is merely worse for it, so a warning is enough where the user did not set the first name: a
    short trial of a recipe (`--task de-en --steps 100`) has no need to give a warm-up of its own.
    """

    names: tuple[str, ...]
    message: str
    mild: bool = False


def contradictions(config: Config) -> list[Contradiction]:
    """Every contradiction in `config`; an empty list where there is none."""
    return [*_data(config), *_network(config), *_optimization(config), *_groups(config)]


def _data(config: Config) -> list[Contradiction]:
    data, encoder = config.data, config.encoder
    found = []
    if data.max_input_length >= data.max_length:
        message = (
            f"max_input_length {data.max_input_length} leaves no room for text in max_length {data.max_length}: "
            "make max_input_length smaller or max_length larger"
        )
        found.append(Contradiction(("max_input_length", "max_length"), message))
    if encoder.encoder_checkpoint is not None and encoder.encoder_model_name == "embedding":
        message = "encoder_checkpoint holds T5 weights, but encoder_model_name is 'embedding': drop one of them"
        found.append(Contradiction(("encoder_checkpoint", "encoder_model_name"), message))
    return found


def _network(config: Config) -> list[Contradiction]:
    network, objective = config.network, config.objective
    found = []
    hidden, heads = network.hidden_size, network.num_heads
    if hidden % heads:
        message = f"hidden_size {hidden} is not divisible by num_heads {heads}"
        found.append(Contradiction(("hidden_size", "num_heads"), message))
    elif hidden // heads % 2:
        message = (
            f"hidden_size {hidden} over num_heads {heads} gives heads of odd size {hidden // heads}, "
            "but rotary positions turn pairs: choose an even head size"
        )
        found.append(Contradiction(("hidden_size", "num_heads"), message))
    if objective.self_cond_cfg_min > objective.self_cond_cfg_max:
        message = (
            f"self_cond_cfg_min {objective.self_cond_cfg_min:g} is above "
            f"self_cond_cfg_max {objective.self_cond_cfg_max:g}"
        )
        found.append(Contradiction(("self_cond_cfg_min", "self_cond_cfg_max"), message))
    return found


def _optimization(config: Config) -> list[Contradiction]:
    optimization, training = config.optimization, config.training
    found = []
    if optimization.lr is not None and optimization.min_lr > optimization.lr:
        message = f"min_lr {optimization.min_lr:g} is above lr {optimization.lr:g}, where the schedule starts"
        found.append(Contradiction(("min_lr", "lr"), message))
    derived = optimization.blr * config.global_batch * optimization.grad_accum_steps / 256
    if optimization.lr is None and optimization.lr_schedule == "cosine" and optimization.min_lr > derived:
        message = f"min_lr {optimization.min_lr:g} is above the peak learning rate {derived:g} that follows from blr"
        found.append(Contradiction(("min_lr", "blr", "lr", "batch_size", "global_batch_size"), message))
    if training.steps is not None and optimization.warmup_steps > training.steps:
        message = f"warmup_steps {optimization.warmup_steps} is more than the {training.steps} steps of the whole run"
        found.append(Contradiction(("warmup_steps", "steps"), message, mild=True))
    if training.steps is None and optimization.warmup_steps < 0 and optimization.warmup_epochs > training.epochs:
        message = (
            f"warmup_epochs {optimization.warmup_epochs:g} is more than the {training.epochs:g} epochs of the run"
        )
        found.append(Contradiction(("warmup_epochs", "epochs"), message, mild=True))
    return found


def _groups(config: Config) -> list[Contradiction]:
    size, batch = config.objective.group_size, config.global_batch
    if size is None or (batch % size == 0 and (size > 1 or batch == 1)):
        return []
    message = f"group_size {size} does not cut a batch of {batch} into equal parts of two or more examples"
    return [Contradiction(("group_size", "batch_size", "global_batch_size"), message)]


def check_devices(config: Config, num_devices: int) -> list[str]:
    """Problems of `config` on `num_devices` devices (all processes counted), one line each."""
    batch = config.global_batch
    if batch % num_devices == 0:
        return []
    name = "global_batch_size" if config.training.global_batch_size is not None else "batch_size"
    near = max(batch // num_devices, 1) * num_devices
    return [f"{name}: {num_devices} devices cannot share {batch} examples evenly: use a multiple, for example {near}"]
