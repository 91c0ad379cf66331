"""The command `elf encoder`, and a run that trains on what it writes."""

import json

import pytest

from elfcli.data.tokenize import Job, tokenize


@pytest.fixture(scope="module")
def ten_lines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ten")
    (folder / "text.txt").write_text("".join(f"a short line number {i}\n" for i in range(10)))
    tokenize(Job(folder / "data", inputs=(str(folder / "text.txt"),), train_tokenizer=27))
    return folder / "data"


def test_ten_lines_are_enough_and_elf_train_takes_the_encoder(elf, ten_lines, tmp_path):
    code, out, err = elf("encoder", "--data", ten_lines, "--steps", 2, "--output", tmp_path / "enc")
    assert code == 0, err
    assert str(tmp_path / "enc") in out and "of masked tokens predicted" in err
    latents = json.loads((tmp_path / "enc" / "latents.json").read_text())
    sets = ["hidden_size=16", "depth=2", "num_heads=2", "bottleneck_dim=8", "max_length=16", "batch_size=8",
            f"encoder_model_name={tmp_path / 'enc'}", f"latent_std={latents['latent_std']}"]  # fmt: skip
    code, _, err = elf("train", "--data", ten_lines, "--output", tmp_path / "run", "--steps", 1,
                       *(word for text in sets for word in ("--set", text)))  # fmt: skip
    assert code == 0, err


def test_wrong_input_is_one_line(elf, ten_lines, tmp_path):
    for arguments, text in [
        ((), "no data: give --data DIR"),
        (("--data", str(ten_lines) + "x"), "did you mean 'data'?"),
        (("--data", tmp_path), "holds no data"),
        (("--data", ten_lines, "--steps", 1, "--minutes", 1), "give one of them"),
        (("--data", ten_lines, "--minutes", 0.01), "too little time: a step takes"),
        (("--data", ten_lines, "--steps", 0), "--steps"),
    ]:
        code, _, err = elf("encoder", *arguments)
        assert code == 2 and text in err, (arguments, err)
        assert sum(line.startswith("error:") for line in err.splitlines()) == 1
    assert not (ten_lines / "encoder").exists()
