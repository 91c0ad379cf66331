"""Provenance of a samples file: `F.jsonl.meta.json` next to F.jsonl, which scorers read."""

import json
from dataclasses import dataclass
from pathlib import Path

import xxhash

from elfcli.outputs import check_output_file, write_output
from elfcli.ui.progress import say


@dataclass(frozen=True)
class SampleProvenance:
    """Provenance of samples: checkpoint and sampling setting, whether spaces are cleaned up, split; None: unknown."""

    made_by: dict | None = None
    clean_up: bool | None = None
    split: str | None = None


UNKNOWN = SampleProvenance()


def meta_file(samples: Path) -> Path:
    """Return the file with the provenance of a samples file."""
    return samples.with_name(f"{samples.name}.meta.json")


def check_meta(samples: Path | None, overwrite: bool) -> None:
    """Raise InputError if the provenance of the samples could not be written later."""
    if samples is not None:
        check_output_file(meta_file(samples), overwrite)


def write_meta(samples: Path, origin: SampleProvenance, overwrite: bool = False) -> None:
    """Write the provenance, after the samples: without it, or with an older one, their provenance is unknown."""
    record = vars(origin) | {"xxh3_128": xxhash.xxh3_128_hexdigest(samples.read_bytes())}
    write_output(meta_file(samples), json.dumps(record, indent=1) + "\n", overwrite)


def read_meta(samples: Path) -> SampleProvenance:
    """Return the provenance of a samples file; unknown, after a warning, if the record is of other samples."""
    path = meta_file(samples)
    if not path.is_file():
        return UNKNOWN
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        origin = SampleProvenance(record["made_by"], record["clean_up"], record["split"])
        if not isinstance(origin.made_by, dict):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        say(f"warning: {path}: not written by elf; made by: unknown")
        return UNKNOWN
    if record.get("xxh3_128") != xxhash.xxh3_128_hexdigest(samples.read_bytes()):
        say(f"warning: {path} belongs to other samples than {samples} now holds; made by: unknown")
        return UNKNOWN
    return origin
