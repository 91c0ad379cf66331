"""Writing one split as `datasets.save_to_disk` lays it out, chunk by chunk, so that memory does not grow with it."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def write_arrow(columns: Iterable[dict[str, Any]], names: list[str], folder: Path) -> dict[str, np.ndarray]:
    """Writes one Arrow file as `datasets.save_to_disk` lays it out; returns the row lengths of token columns."""
    import datasets
    import pyarrow as pa

    tokens = [name for name in names if name.endswith("input_ids")]
    kinds = {
        name: datasets.List(datasets.Value("int32")) if name in tokens else datasets.Value("string") for name in names
    }
    features = datasets.Features(kinds)
    schema = features.arrow_schema
    lengths: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int64)] for name in tokens}
    file = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for chunk in columns:
            arrays = []
            for name in names:
                if name not in tokens:
                    arrays.append(pa.array(chunk[name], pa.string()))
                    continue
                values, row_lengths = chunk[name]
                offsets = np.concatenate([[0], np.cumsum(row_lengths)]).astype(np.int32)
                arrays.append(pa.ListArray.from_arrays(offsets, pa.array(values), type=schema.field(name).type))
                lengths[name].append(row_lengths)
            stream.write_batch(pa.record_batch(arrays, schema=schema))
    state: dict[str, Any] = {
        "_data_files": [{"filename": file}],
        "_fingerprint": sha256(folder / file)[:16],
        "_format_columns": None,
    }
    state |= {"_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None}
    (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    return {name: np.concatenate(parts) for name, parts in lengths.items()}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
