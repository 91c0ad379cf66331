"""Reads and writes state dicts of the PyTorch port: names like `blocks.0.attn.qkv.weight`, kernels transposed. The
arrays of its factored output head (`proj_kernel`, `unembed_kernel`) are plain parameters, not transposed."""

import re
from collections.abc import Iterable
from pathlib import Path
from zipfile import is_zipfile

import numpy as np

from elfcli.errors import InputError, first_line
from elfcli.weights.reference import elf_from_reference, elf_to_reference

WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.)+")
BUFFERS = re.compile(r"(^|\.)(feat_)?rope\.")  # tables of rotary angles, which we compute
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
NESTED = {True: ("ema_params1", "ema", "ema_model"), False: ("model", "state_dict", "params", "model_state_dict")}
"""Keys of the moving average (True) and of the weights (False) in a `.pt` training checkpoint."""


def is_torch_state(names: Iterable[str]) -> bool:
    """Return whether array names are the PyTorch port's rather than the reference's."""
    return any(re.fullmatch(r"blocks\.\d+\.attn\.qkv\.weight", WRAPPERS.sub("", name)) for name in names)


def elf_to_torch(params: dict) -> dict[str, np.ndarray]:
    """Return our ELF parameters as the port's state dict, as contiguous arrays."""
    state = {}
    for path, leaf in elf_to_reference(params).items():
        name = re.sub(r"^blocks_(\d+)/", r"blocks.\1.", path).replace("/", ".")
        if name.endswith(".kernel"):
            name, leaf = name.removesuffix("kernel") + "weight", leaf.T
        state[name] = np.ascontiguousarray(leaf)
    return state


def elf_from_torch(state: dict[str, np.ndarray]) -> dict:
    """Return the port's state dict as our parameters. Raise InputError for any other state dict."""
    flat = {}
    for name, leaf in state.items():
        name = WRAPPERS.sub("", name)
        if BUFFERS.search(name):
            continue
        path = re.sub(r"^blocks\.(\d+)\.", r"blocks_\1.", name)
        path = re.sub(r"(embedder)\.mlp\.(\d)", r"\1.mlp_\2", path).replace(".", "/")
        if path.endswith("/weight") and leaf.ndim == 2:
            path, leaf = path.removesuffix("weight") + "kernel", leaf.T
        flat[path] = leaf
    return elf_from_reference(flat)


def is_torch_file(path: Path) -> bool:
    """Return whether a file is PyTorch's: by its suffix, or a zip archive whatever its name, e.g. `checkpoint_500`."""
    return path.suffix in TORCH_SUFFIXES or is_zipfile(path)


def read_torch_state(path: Path, *, ema: bool = True) -> tuple[dict[str, np.ndarray], dict]:
    """Return (state dict, {"weights": ema or raw, "step": if the file or its name has it}), read weights-only."""
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading .pt files needs PyTorch, which is not installed; `pip install torch`, or "
                         "save the weights as .safetensors") from None  # fmt: skip
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises any kind
        raise InputError(f"{path}: cannot be read as PyTorch weights ({first_line(error)})") from None
    keys = [(name, kind) for kind in ((True, False) if ema else (False,)) for name in NESTED[kind]]
    nested = ((content[name], kind) for name, kind in keys if isinstance(content.get(name), dict))
    state, averaged = next(nested, (content, False))
    info: dict = {"weights": "ema" if averaged else "raw"}
    step = content.get("step", path.name.removeprefix("checkpoint_"))
    if isinstance(step, int) or str(step).isdecimal():
        info["step"] = int(step)
    return {name: np.asarray(t.float().numpy()) for name, t in state.items() if hasattr(t, "float")}, info
