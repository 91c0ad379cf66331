"""Reads the reference's encoder pickle with an unpickler that admits nothing but arrays."""

from pathlib import Path

import numpy as np

from elfcli.errors import InputError, first_line
from elfcli.weights.files import fetch
from elfcli.weights.pickles import ArrayUnpickler, mapped
from elfcli.weights.reference import flatten


def read_encoder_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """Return the flat encoder tree of the reference's pickle {"params": tree}. Other objects are refused unread. path:
    a file, or `org/repository/file` on the Hub."""
    name, path = str(path), Path(path).expanduser()
    if not path.exists() and name.count("/") > 1 and not name.startswith((".", "/", "~")):
        organization, repository, file_name = name.split("/", 2)
        path = fetch(f"{organization}/{repository}", file_name, "encoder's pickle")
    try:
        with mapped(path) as file:
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
