"""Which GPUs get cuDNN's fused attention."""

from types import SimpleNamespace

import pytest

from elfcli.parallel.backend import cudnn_attention


def gpu(version: str, capability: str):
    return SimpleNamespace(client=SimpleNamespace(platform_version=version), compute_capability=capability)


class Device(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("version", "capability"),
    [("PJRT C API\nrocm 60300", "gfx90a"), ("PJRT C API\ncuda 12090", "7.5"), ("PJRT C API\ncuda 12090", "7.0")],
)
def test_older_gpus_and_other_makers_get_plain_attention(version, capability, capsys):
    device = Device(**vars(gpu(version, capability)))
    assert not cudnn_attention(device)
    assert capsys.readouterr().err == "", "nothing is wrong with them"


def test_a_kernel_that_cannot_be_built_is_reported_in_one_line(capsys):
    """This machine has no cuDNN, so building its kernel fails."""
    device = Device(**vars(gpu("PJRT C API\ncuda 12090", "9.0")))
    assert not cudnn_attention(device)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cuDNN" in err
