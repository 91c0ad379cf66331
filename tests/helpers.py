"""What tests of several rooms share: where the larger test data lie, and whether two parameter trees are the same.

conftest.py imports this before it sets what JAX reads when it is imported, so nothing here imports JAX at the top.
"""

import os
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
"""Corpora, tokenizers and the larger set of goldens, beside the checkout where they are present."""
T5 = SHARED / "t5-small"
GPT2_TOKENIZER = SHARED / "gpt2-large-tokenizer"
COLLECT_AFTER = 100_000  # objects: tracing makes millions that stay, and looking at them takes an eighth of the time
SESSION = "TESTS_SESSION_FOLDER"
GOLDENS = Path(__file__).with_name("goldens")
"""One golden of each kind; goldens/README.md says how they were made."""


def session_folder() -> Path:
    """Return the folder that all workers of this session share; the process that started them deletes it."""
    return Path(os.environ[SESSION])


def same(ours: dict, theirs: dict) -> bool:
    """Whether two trees hold the same arrays to the last bit."""
    from flax.traverse_util import flatten_dict

    a, b = flatten_dict(ours), flatten_dict(theirs)
    return a.keys() == b.keys() and all(np.array_equal(np.asarray(a[k]), np.asarray(b[k])) for k in a)
