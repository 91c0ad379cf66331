"""Converts parameter trees of the reference (lillian039/ELF) to ours and back, and reads its checkpoints. The
reference's trees are flat dicts {"blocks_0/attn/qkv/kernel": array}; ours stack the blocks along a leading layer axis.
All arrays are otherwise equal, so both directions are exact."""

import re
from functools import partial
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elfcli.errors import ElfError, InputError, first_line
from elfcli.models.elf import ElfShape, abstract_params
from elfcli.weights.files import read_msgpack

T5_BIAS = "encoder/block_{}/layer_0/SelfAttention/relative_attention_bias/rel_embedding"  # umT5 has one in each block
T5_BLOCK_NAMES = {
    **{f"{name}/kernel": f"layer_0/SelfAttention/{name}/kernel" for name in ("q", "k", "v", "o")},
    **{f"{name}/kernel": f"layer_1/DenseReluDense/{name}/kernel" for name in ("wi", "wi_0", "wi_1", "wo")},
    "attn_norm/weight": "layer_0/layer_norm/weight",
    "mlp_norm/weight": "layer_1/layer_norm/weight",
}  # The reference's name of each of our T5 block's arrays
T5_NAMES = {
    "embedding": "shared/embedding",
    "rel_embedding": T5_BIAS.format(0),
    "final_norm/weight": "encoder/final_layer_norm/weight",
}

flatten = partial(flatten_dict, sep="/")
unflatten = partial(unflatten_dict, sep="/")


def elf_to_reference(params: dict) -> dict[str, np.ndarray]:
    """Return our ELF parameters as the reference's flat tree."""
    flat = {}
    for path, leaf in flatten(params).items():
        if path.startswith("blocks/"):
            for i, layer in enumerate(np.asarray(leaf)):
                flat[f"blocks_{i}/{path.removeprefix('blocks/')}"] = layer
        else:
            flat[path] = np.asarray(leaf)
    return flat


def elf_from_reference(flat: dict) -> dict:
    """Return the reference's flat ELF tree as our parameters. Raise InputError for any other tree."""
    layers: dict[str, dict[int, np.ndarray]] = {}
    ours = {}
    for path, leaf in flat.items():
        if match := re.fullmatch(r"blocks_(\d+)/(.+)", path):
            layers.setdefault(f"blocks/{match[2]}", {})[int(match[1])] = leaf
        else:
            ours[path] = leaf
    for path, by_layer in layers.items():
        if sorted(by_layer) != list(range(len(by_layer))):
            raise InputError(f"{path}: layers {sorted(by_layer)} are not consecutive from 0; the tree is incomplete")
        ours[path] = np.stack([by_layer[i] for i in range(len(by_layer))])
    params = unflatten(ours)
    check_tree(params, shape_of(params))
    return params


def shape_of(params: dict) -> ElfShape:
    """Return the network's shape, read from its parameters."""
    try:
        qkv = params["blocks"]["attn"]["qkv"]["kernel"]
        bottleneck, hidden = params["text_proj"]["proj2"]["kernel"].shape
        latent, vocab = params["unembed_kernel"].shape
        head_dim = params["blocks"]["attn"]["q_norm"]["weight"].shape[-1]

        def tokens(name: str) -> int:
            return params[name].shape[1] if name in params else 0

        return ElfShape(
            latent_dim=latent, vocab_size=vocab, depth=qkv.shape[0], hidden_size=hidden, num_heads=hidden // head_dim,
            bottleneck_dim=bottleneck, num_time_tokens=tokens("t_emb_tokens"),
            num_self_cond_cfg_tokens=tokens("self_cond_cfg_tokens"), num_model_mode_tokens=tokens("mode_tokens"),
            self_cond="self_cond_proj" in params,
        )  # fmt: skip
    except (KeyError, AttributeError, ValueError, IndexError) as error:
        raise InputError(f"this is not an ELF parameter tree: {error} is missing or has the wrong shape") from None


def check_tree(params: dict, shape: ElfShape) -> None:
    """Raise InputError for the first array that is missing, unexpected, or of another shape than `shape` gives."""
    have, want = flatten(params), flatten(abstract_params(shape))
    for path in sorted(have.keys() | want.keys()):
        mine = tuple(have[path].shape) if path in have else "absent"
        theirs = tuple(want[path].shape) if path in want else "absent"
        if mine != theirs:
            raise InputError(f"parameter {path} is {mine} in the checkpoint but {theirs} in the model's settings")


def t5_from_reference(flat: dict) -> dict:
    """Return the reference's flat encoder tree (or Hugging Face's, renamed) as our T5 parameters."""
    num_layers = len({m[1] for path in flat if (m := re.match(r"encoder/block_(\d+)/", path))})
    try:
        ours = {name: flat[theirs] for name, theirs in T5_NAMES.items()}
        if T5_BIAS.format(1) in flat:
            ours["rel_embedding"] = np.stack([flat[T5_BIAS.format(i)] for i in range(num_layers)])
        for name, theirs in T5_BLOCK_NAMES.items():
            if f"encoder/block_0/{theirs}" in flat:
                ours[f"blocks/{name}"] = np.stack([flat[f"encoder/block_{i}/{theirs}"] for i in range(num_layers)])
    except KeyError as error:
        raise InputError(f"this is not a T5 encoder tree: {error} is missing") from None
    return unflatten(ours)


def t5_to_reference(params: dict) -> dict[str, np.ndarray]:
    """Return our T5 parameters as the reference's flat encoder tree."""
    flat = flatten(params)
    theirs = {T5_NAMES[name]: flat.pop(name) for name in T5_NAMES}
    for path, stacked in flat.items():
        for i, layer in enumerate(stacked):
            theirs[f"encoder/block_{i}/{T5_BLOCK_NAMES[path.removeprefix('blocks/')]}"] = layer
    return {path: np.asarray(leaf) for path, leaf in theirs.items()}


REFERENCE_WEIGHTS = ("params", "ema_params1")


def read_reference_checkpoint(path: str | Path) -> dict:
    """Return {"params", "ema_params1" (our trees), "step", "epoch"} of a `checkpoint_<step>`, or raise InputError."""
    path = Path(path)
    tree = _read_orbax(path) if path.is_dir() else read_msgpack(path)
    if missing := [name for name in ("params", "step") if name not in tree]:
        held = ", ".join(sorted(map(str, tree))) or "nothing"
        raise InputError(f"{path}: no {missing[0]!r} in this checkpoint; it holds {held}")
    try:
        weights = {name: elf_from_reference(flatten(tree[name])) for name in REFERENCE_WEIGHTS if name in tree}
        return weights | {"step": int(tree["step"]), "epoch": int(tree.get("epoch", 0))}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (AssertionError, AttributeError, TypeError, ValueError) as error:  # flatten_dict asserts a dict
        raise InputError(f"{path}: not a checkpoint of the reference ({first_line(error)})") from None


def _read_orbax(path: Path) -> dict:
    from elfcli.runs.checkpoint import read_without_barriers

    try:
        return read_without_barriers(path.absolute(), (*REFERENCE_WEIGHTS, "step", "epoch"))
    except ElfError as error:
        why = first_line(error.__cause__ or error)
        raise InputError(f"{path}: not an Orbax checkpoint, or a damaged one ({why})") from None
