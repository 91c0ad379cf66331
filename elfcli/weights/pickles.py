"""Unpicklers that admit nothing but arrays, and PyTorch's weight files (`pytorch_model.bin`) read with one of them."""

import mmap
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from elfcli.errors import InputError, first_line


def _reconstruct(_subtype: Any, _shape: Any, _typecode: Any) -> np.ndarray:
    """Return an empty array. numpy checks the state that follows against its bytes; the shape given is not used."""
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _jax_array(_numpy_reconstruct: Any, _args: Any, array_state: Any, _aval_state: Any) -> np.ndarray:
    """Return a jax.Array, which is pickled as the parts of a numpy array, as a numpy array."""
    array = _reconstruct(None, None, None)
    array.__setstate__(array_state)
    return array


ADMITTED = {
    ("numpy", "ndarray"): "ndarray",  # only ever an argument of _reconstruct; a string cannot be called
    ("numpy", "dtype"): lambda name, *flags: np.dtype(str(name), *flags),
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class ArrayUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """A reader of pickled numpy and JAX arrays, which uses the functions of `admitted` and refuses every other name.

    It is Python's own unpickler in Python: the one in C allocates as many gigabytes as a damaged file's memo asks for.
    """

    admitted: Mapping[tuple[str, str], Any] = ADMITTED

    def find_class(self, module: str, name: str) -> Any:
        """Return the function for a name in the pickle. Raise InputError for a name that is not admitted."""
        try:
            return self.admitted[module, name]
        except KeyError:
            what = f"the pickle asks for {module}.{name}; only arrays are admitted, nothing was run"
            raise InputError(what) from None


class Storage(NamedTuple):
    """A block of numbers in a PyTorch file. key: its name there."""

    dtype: np.dtype
    key: str


class Tensor(NamedTuple):
    """A view of a storage. offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


DTYPES = {"Float": np.float32, "Half": np.float16, "BFloat16": jnp.bfloat16, "Double": np.float64,
          "Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8,
          "Bool": np.bool_}  # fmt: skip
TENSORS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: Tensor(
        Storage(*storage), int(offset), tuple(map(int, shape)), tuple(map(int, strides))
    ),
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: Tensor(*tensor),
    **{("torch", f"{name}Storage"): np.dtype(dtype) for name, dtype in DTYPES.items()},
}


class TensorUnpickler(ArrayUnpickler):
    """A reader of PyTorch's pickles, which describe tensors and name the storages that follow."""

    admitted = TENSORS

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that `pid` describes: ("storage", dtype, key, device, count[, view])."""
        kind, dtype, key, *_, view = pid if len(pid) == 6 else (*pid, None)
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise ValueError("a storage that is not supported")
        return Storage(dtype, str(key))


def read_torch(path: Path, is_wanted: Callable[[str], Any] = lambda name: True) -> dict[str, np.ndarray]:
    """Return the wanted tensors of a state dict that PyTorch saved, as float32, without PyTorch. Nothing but tensors is
    unpickled; other objects are refused. The others are not read into memory."""
    try:
        state, places = (_zip_contents if zipfile.is_zipfile(path) else _legacy_contents)(path)
        if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("expected a dictionary of tensors")
        wanted = {name: value for name, value in state.items() if isinstance(value, Tensor) and is_wanted(name)}
        return {name: _array(path, tensor, places[tensor.storage.key]) for name, tensor in wanted.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged file raises any kind
        raise InputError(f"{path}: not PyTorch weights, or damaged ones ({first_line(error)})") from None


Place = tuple[int, int]
"""First byte of a storage in the file, and its number of bytes."""


def _zip_contents(path: Path) -> tuple[Any, dict[str, Place]]:
    """Return (state dict, place of each storage) of a file as PyTorch 1.6 and later write it."""
    with zipfile.ZipFile(path) as archive, mapped(path) as file:
        places = {}
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its entries are compressed")
            file.seek(entry.header_offset + 26)  # lengths of the name and of the extra field
            first = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
            places[entry.filename] = first, entry.file_size
        (pickled,) = (name for name in places if name.endswith("/data.pkl"))
        file.seek(places[pickled][0])
        folder = pickled.removesuffix("data.pkl") + "data/"
        state = TensorUnpickler(file).load()
        return state, {name.removeprefix(folder): place for name, place in places.items() if name.startswith(folder)}


def _legacy_contents(path: Path) -> tuple[Any, dict[str, Place]]:
    """Return (state dict, place of each storage) of a file as PyTorch before 1.6 wrote it: pickles, then storages."""
    with mapped(path) as file:
        magic, _, _, state, keys = (TensorUnpickler(file).load() for _ in range(5))
        if magic != 0x1950A86A20F9469CFC6C:
            raise ValueError("an unknown format")
        itemsizes = {value.storage.key: value.storage.dtype.itemsize for value in state.values()
                     if isinstance(value, Tensor)}  # fmt: skip
        return state, {key: _next_place(file, itemsizes[key]) for key in keys}


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    """Open a file whose `read` allocates no more than the file holds, whatever a damaged pickle asks for."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _next_place(file: Any, itemsize: int) -> Place:
    """Return the place of the storage that begins with its number of elements, and skip it."""
    (count,) = struct.unpack("<q", file.read(8))
    first = file.tell()
    file.seek(count * itemsize, 1)
    return first, count * itemsize


def _array(path: Path, tensor: Tensor, place: Place) -> np.ndarray:
    """Return a tensor as float32. Raise ValueError if it reaches beyond its storage, or is larger."""
    (dtype, _), offset, shape, strides = tensor
    first, size = place
    count = size // dtype.itemsize
    last, total = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)), 1
    for n in shape:
        total *= n
    if min((offset, *shape, *strides)) < 0 or total > count or (total and last >= count):
        raise ValueError("a tensor that is not within its storage")
    if not total:
        return np.zeros(shape, np.float32)
    values = np.memmap(path, dtype, "r", first, (count,))
    steps = [stride * dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps).astype(np.float32)
