import pytest

from elfcli.config.check import check_devices
from elfcli.config.resolve import ConfigError, resolve


@pytest.mark.parametrize(
    ("sets", "names"),
    [
        (["max_length=64", "max_input_length=64"], "max_input_length 64, max_length 64"),
        (["hidden_size=100", "num_heads=3"], "hidden_size 100, num_heads 3"),
        (["hidden_size=12", "num_heads=4"], "hidden_size 12, num_heads 4, 3"),
        (["self_cond_cfg_min=3", "self_cond_cfg_max=2"], "self_cond_cfg_min 3, self_cond_cfg_max 2"),
        (["min_lr=0.1", "lr=0.01"], "min_lr 0.1, lr 0.01"),
        (["min_lr=0.1", "lr_schedule=cosine"], "min_lr 0.1, 0.002, blr"),
        (["steps=10", "warmup_steps=11"], "warmup_steps 11, 10 steps"),
        (["epochs=1", "warmup_epochs=2"], "warmup_epochs 2, 1 epochs"),
        (["encoder_model_name=embedding", "encoder_checkpoint=x.pkl"], "encoder_model_name, encoder_checkpoint"),
        (["group_size=3", "batch_size=8"], "group_size 3, 8"),
    ],
)
def test_each_contradiction_is_reported_once_with_names_and_numbers(sets, names):
    with pytest.raises(ConfigError) as caught:
        resolve(sets=sets, environ={})
    (line,) = caught.value.problems
    assert line.startswith("--set: ") and all(name in line for name in names.split(", "))


def test_the_boundaries_are_allowed():
    resolve(sets=["max_length=64", "max_input_length=63", "min_lr=0.1", "lr=0.1"], environ={})
    resolve(sets=["steps=10", "warmup_steps=10", "self_cond_cfg_min=2", "self_cond_cfg_max=2"], environ={})


def test_a_batch_that_devices_cannot_share():
    config = resolve(sets=["batch_size=10"], environ={}).config
    assert check_devices(config, 5) == []
    (line,) = check_devices(config, 4)
    assert line.startswith("batch_size: ") and "10 examples" in line and line.endswith(" 8")
    (line,) = check_devices(resolve(sets=["global_batch_size=3"], environ={}).config, 4)
    assert line.startswith("global_batch_size: ") and line.endswith(" 4")
