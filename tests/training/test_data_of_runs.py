"""A run keeps to its data, and never drops the sources of pairs."""

import json
import shutil

import datasets
import pytest
from tiny_run import SETTINGS, tiny_run

from elfcli.config.resolve import resolve
from elfcli.data.folder import load_examples
from elfcli.errors import InputError
from elfcli.recipe.defaults import with_source_length
from elfcli.runs.folder import DATA_FILE
from elfcli.training.start import resume_run, start_run


@pytest.fixture
def run(tmp_path):
    """A run stopped at its second step of three."""
    data = shutil.copytree(tiny_run().parent / "data", tmp_path / "data")
    settings = resolve(task="toy-de-en", sets=SETTINGS, flags={"data_path": str(data)}, environ={})
    return start_run(settings, tmp_path / "run", stop_at=2)


def other(folder, source):
    """The same rows and one more."""
    rows = datasets.load_from_disk(str(source))
    more = datasets.concatenate_datasets([rows, rows.select([0])])
    more.save_to_disk(str(folder))
    return folder


def test_a_run_goes_on_with_its_data_wherever_that_lies(run, tmp_path):
    assert json.loads((run / DATA_FILE).read_text())["examples"] == 32
    moved = shutil.copytree(tmp_path / "data", tmp_path / "moved")
    shutil.rmtree(tmp_path / "data")
    resume_run(run, [f"data_path={moved}"])
    assert (run / "checkpoints" / "3").is_dir()


def test_a_run_refuses_other_data_until_told_to_take_it(run, tmp_path, elf):
    new = other(tmp_path / "other", tmp_path / "data")
    sets = [f"data_path={new}", f"tokenizer_name={tmp_path / 'data' / 'tokenizer'}"]
    line = ["resume", run, *(word for setting in sets for word in ("--set", setting))]
    code, _, err = elf(*line)
    assert code == 2 and "32 examples" in err and "33" in err
    assert "--set data_path=DIR" in err and "--other-data" in err
    assert not (run / "checkpoints" / "3").is_dir()
    code, _, err = elf(*line, "--other-data")
    assert code == 0, err
    assert json.loads((run / DATA_FILE).read_text())["examples"] == 33
    assert elf("resume", run)[0] == 0


def test_runs_of_0_1_0_do_not_say_and_go_on(run, tmp_path):
    (run / DATA_FILE).unlink()
    resume_run(run)
    assert json.loads((run / DATA_FILE).read_text())["fingerprint"] == load_examples(tmp_path / "data").fingerprint


def pairs(folder, sources, text=6):
    """Pairs with sources of these lengths, from ids of tiny_run's vocabulary."""
    ids = {"condition_input_ids": [[3] * length for length in sources], "input_ids": [[4] * text for _ in sources]}
    datasets.Dataset.from_dict(ids).save_to_disk(str(folder))
    return folder


def settings_of(data, *sets, **arguments):
    keep = [setting for setting in SETTINGS if not setting.startswith("max_input_length")]
    tokenizer = tiny_run() / "tokenizer"
    given = [*keep, "encoder_model_name=embedding", f"tokenizer_name={tokenizer}", *sets]
    return resolve(sets=given, flags={"data_path": str(data)}, environ={}, **arguments)


@pytest.mark.parametrize(
    ("sources", "max_length", "length"),
    [([3] * 99 + [60] * 1, 64, 8), ([3] * 97 + [50] * 3, 64, 56), ([60] * 16, 64, 56), ([60] * 16, 12, 6)],
)
def test_the_room_for_sources_comes_from_the_data(tmp_path, capsys, sources, max_length, length):
    data = pairs(tmp_path / "pairs", sources)
    found = with_source_length(settings_of(data, f"max_length={max_length}"), load_examples(data))
    assert found.config.data.max_input_length == length
    assert found.origins["max_input_length"].layer == "from the data"
    said = [line for line in capsys.readouterr().err.splitlines() if "max_input_length" in line]
    assert len(said) == 1 and said[0].startswith(f"max_input_length {length}, from the data: {data} has sources")


def test_what_is_set_and_data_without_sources_stay_as_they_are(tmp_path):
    data = pairs(tmp_path / "pairs", [3] * 16)
    set_to_5 = settings_of(data, "max_input_length=5")
    assert with_source_length(set_to_5, load_examples(data)) is set_to_5
    datasets.Dataset.from_dict({"input_ids": [[4] * 6] * 16}).save_to_disk(str(tmp_path / "text"))
    free = settings_of(tmp_path / "text")
    assert with_source_length(free, load_examples(tmp_path / "text")) is free


@pytest.mark.parametrize("how", ["set", "task"])
def test_a_zero_that_was_set_is_refused(tmp_path, how):
    data = pairs(tmp_path / "pairs", [3] * 16)
    sets = ["max_input_length=0"] if how == "set" else []
    task = {"task": "owt"} if how == "task" else {}
    with pytest.raises(InputError, match=r"max_input_length 0, but .*pairs has sources .*, e\.g\. 8, or") as caught:
        start_run(settings_of(data, *sets, **task), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_file_of_the_reference_is_recorded_with_what_follows_from_data_and_devices(tmp_path):
    data = pairs(tmp_path / "pairs", [40] + [3] * 999)
    (tmp_path / "r.yml").write_text("batch_size: 4\nmax_input_length: null\nmax_length: 64\nonline_eval: false\n")
    keep = [setting for setting in SETTINGS if not setting.startswith(("batch_size", "max_"))]
    given = [*keep, "encoder_model_name=embedding", f"tokenizer_name={tiny_run() / 'tokenizer'}"]
    resolved = resolve(sets=given, files=[tmp_path / "r.yml"], flags={"data_path": str(data)}, environ={})
    text = (start_run(resolved, tmp_path / "run") / "config.toml").read_text()
    assert "batch_size = 4  # 4 per device" in text and "on 1\n" in text
    assert "max_input_length = 40  # from the data" in text
    again = resolve(files=[tmp_path / "run" / "config.toml"], environ={})
    assert (again.notices, again.config.global_batch) == ((), 4)
