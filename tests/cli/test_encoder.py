"""The command `elf encoder`."""

import json
import shutil

from tiny_run import tiny_run


def test_the_command_writes_beside_the_data_and_says_how_good_it_is(elf, tmp_path):
    data = shutil.copytree(tiny_run().parent / "data", tmp_path / "data")
    code, out, err = elf("encoder", "--data", data, "--steps", 2)
    assert code == 0, err
    assert f"--set encoder_model_name={data / 'encoder'}" in out and "of masked tokens predicted" in err
    assert json.loads((data / "encoder" / "latents.json").read_text())["steps"] == 2


def test_wrong_input_is_one_line(elf, tmp_path):
    data = tiny_run().parent / "data"
    for arguments, text in [
        ((), "no data: give --data DIR"),
        (("--data", f"{data}x"), "did you mean 'data'?"),
        (("--data", tmp_path), "holds no data"),
        (("--data", data, "--steps", 1, "--minutes", 1), "give one of them"),
        (("--data", data, "--minutes", 0.01), "too little time: a step takes"),
        (("--data", data, "--steps", 0), "--steps"),
    ]:
        code, _, err = elf("encoder", *arguments)
        assert code == 2 and text in err, (arguments, err)
        assert sum(line.startswith("error:") for line in err.splitlines()) == 1
    assert not (data / "encoder").exists()
