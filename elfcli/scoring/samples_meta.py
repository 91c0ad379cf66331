"""What made a samples file: `F.jsonl.meta.json` beside F.jsonl, written by `elf sample`, `elf eval` and `elf sweep`,
and read by the scorers."""

import json
from dataclasses import dataclass
from pathlib import Path

import xxhash

from elfcli.outputs import check_output_file, write_output
from elfcli.ui.progress import say


@dataclass(frozen=True)
class SampleProvenance:
    """made_by: the checkpoint and the way to sample. clean_up: whether decoding cleans up spaces. split: of the data.

    None: not known.
    """

    made_by: dict | None = None
    clean_up: bool | None = None
    split: str | None = None


UNKNOWN = SampleProvenance()


def meta_file(samples: Path) -> Path:
    return samples.with_name(f"{samples.name}.meta.json")


def check_meta(samples: Path | None, overwrite: bool) -> None:
    """InputError where the file beside the samples could not be written later."""
    if samples is not None:
        check_output_file(meta_file(samples), overwrite)


def file_hash(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def write_meta(samples: Path, origin: SampleProvenance, overwrite: bool = False) -> None:
    """Written after the samples: without it, or with an older one, they are of unknown origin."""
    found = vars(origin) | {"xxh3_128": file_hash(samples)}
    write_output(meta_file(samples), json.dumps(found, indent=1) + "\n", overwrite)


def read_meta(samples: Path) -> SampleProvenance:
    """The origin of a samples file; unknown, after a warning, where the file beside it is of other samples."""
    path = meta_file(samples)
    if not path.is_file():
        return UNKNOWN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        made_by, clean_up, split = found["made_by"], found["clean_up"], found["split"]
        if not isinstance(made_by, dict):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        say(f"warning: {path}: not written by elf; made by: unknown")
        return UNKNOWN
    if found.get("xxh3_128") != file_hash(samples):
        say(f"warning: {path} is of other samples than {samples} holds now; made by: unknown")
        return UNKNOWN
    return SampleProvenance(made_by, clean_up, split)
