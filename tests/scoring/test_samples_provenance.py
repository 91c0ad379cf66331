"""The file next to samples with their provenance."""

import pytest

from elfcli.errors import InputError
from elfcli.scoring.samples_file import UNKNOWN, SampleProvenance, check_meta, meta_file, read_meta, write_meta


def test_it_counts_only_for_the_samples_that_it_was_written_for(tmp_path, capsys):
    samples, origin = tmp_path / "F.jsonl", SampleProvenance({"checkpoint": "run", "step": 3}, False, "validation")
    samples.write_text('{"generated": "a"}\n')
    assert read_meta(samples) == UNKNOWN and capsys.readouterr().err == ""
    write_meta(samples, origin)
    assert read_meta(samples) == origin and capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"F.jsonl.meta.json.*--overwrite"):
        check_meta(samples, False)
    check_meta(samples, True)

    samples.write_text('{"generated": "of another checkpoint"}\n')
    assert read_meta(samples) == UNKNOWN
    warned = capsys.readouterr().err
    assert warned.startswith("warning: ") and str(meta_file(samples)) in warned and warned.count("\n") == 1
    for damaged in ("{", "[]", '{"made_by": 3, "clean_up": null, "split": null}'):
        meta_file(samples).write_text(damaged)
        assert read_meta(samples) == UNKNOWN and "warning: " in capsys.readouterr().err
