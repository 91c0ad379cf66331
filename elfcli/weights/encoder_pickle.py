"""Reads the reference's encoder pickle with an unpickler that admits nothing but arrays."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from elfcli.errors import InputError, first_line
from elfcli.weights.files import fetch
from elfcli.weights.reference import flatten


def read_encoder_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """Return the flat encoder tree of the reference's pickle {"params": tree}. Other objects are refused unread. path:
    a file, or `org/repository/file` on the Hub."""
    name, path = str(path), Path(path).expanduser()
    if not path.exists() and name.count("/") > 1 and not name.startswith((".", "/", "~")):
        organization, repository, file_name = name.split("/", 2)
        path = fetch(f"{organization}/{repository}", file_name, "encoder's pickle")
    try:
        with open(path, "rb") as file:
            flat = flatten(ArrayUnpickler(file).load()["params"])
        if not flat or not all(isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" for leaf in flat.values()):
            raise TypeError("other objects in it")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle raises any kind
        raise InputError(f'{path}: expected a pickle of {{"params": tree of float arrays}}, but it is another or a '
                         f"damaged one ({first_line(error)})") from None  # fmt: skip
    return flat


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


class ArrayUnpickler(pickle.Unpickler):
    """A reader of pickled numpy and JAX arrays, which uses the functions of ADMITTED and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the function for a name in the pickle. Raise InputError for a name that is not admitted."""
        try:
            return ADMITTED[module, name]
        except KeyError:
            what = f"the pickle asks for {module}.{name}; only arrays are admitted, nothing was run"
            raise InputError(what) from None
