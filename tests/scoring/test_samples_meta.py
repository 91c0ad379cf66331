"""The file beside samples that says what made them."""

import pytest

from elfcli.errors import InputError
from elfcli.scoring.samples_meta import UNKNOWN, SampleProvenance, check_meta, meta_file, read_meta, write_meta


def test_it_is_read_only_where_it_is_of_these_samples(tmp_path, capsys):
    samples, origin = tmp_path / "F.jsonl", SampleProvenance({"checkpoint": "run", "step": 3}, False, "validation")
    samples.write_text('{"generated": "a"}\n')
    assert read_meta(samples) == UNKNOWN and capsys.readouterr().err == ""
    write_meta(samples, origin)
    assert read_meta(samples) == origin and capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"F.jsonl.meta.json exists.*--overwrite"):
        check_meta(samples, False)
    check_meta(samples, True)

    samples.write_text('{"generated": "of another checkpoint"}\n')
    assert read_meta(samples) == UNKNOWN
    warned = capsys.readouterr().err
    assert "is of other samples" in warned and "made by: unknown" in warned and warned.count("\n") == 1
    for damaged in ("{", "[]", '{"made_by": 3, "clean_up": null, "split": null}'):
        meta_file(samples).write_text(damaged)
        assert read_meta(samples) == UNKNOWN and "not written by elf" in capsys.readouterr().err
