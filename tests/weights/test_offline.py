"""What was fetched once opens from the cache when the Hub is gone, by the same command; a resume needs no network."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from gpt2_files import write_judge
from helpers import GOLDENS
from hub_server import TOKEN, Hub

OLD = Path(__file__).parents[1] / "old" / "0.1.0"
SCRIPT = Path(__file__).with_name("offline_script.py")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(hub: Hub, folder: Path) -> None:
    rows = datasets.Dataset.from_dict({"input_ids": [[3, 4, 5 + n % 4] for n in range(16)]})
    parquet = io.BytesIO()
    rows.to_parquet(parquet)
    hub.add("org/plain", {"data/train-00000-of-00001.parquet": parquet.getvalue()})
    rows.save_to_disk(str(folder / "saved"))
    hub.add("org/saved", files_of(folder / "saved"))
    exported = files_of(OLD / "export")
    hub.add("org/model", exported | {path.removeprefix("tokenizer/"): data for path, data in exported.items()
                                     if path.startswith("tokenizer/")})  # fmt: skip
    hub.add("org/encoder", files_of(GOLDENS / "t5_relu"))
    hub.add("org/judge", files_of(write_judge(folder / "judge")))


def opened(folder: Path, url: str, **more: str) -> dict:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ELF_", "HF_"))}
    environment |= {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "cache"),
                    "HF_HUB_DISABLE_XET": "1",
                    "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get(
                        "PYTHONPATH")]))}  # fmt: skip
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], env=environment | more, capture_output=True,
                          text=True, timeout=250)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """(folder, address of a Hub that is gone, what was read while it was reachable)."""
    folder = tmp_path_factory.mktemp("offline")
    with Hub() as hub:
        fill(hub, folder)
        found = opened(folder, hub.url)
    return folder, hub.url, found


@pytest.mark.parametrize("more", [{}, pytest.param({"HF_HUB_OFFLINE": "1"}, marks=pytest.mark.slow)])
def test_the_cache_serves_when_the_hub_is_gone(fetched, tmp_path, more):
    folder, url, found = fetched
    shutil.copytree(folder, tmp_path / "here")
    assert found["org/plain"][0] == found["org/saved"][0] == 16
    assert opened(tmp_path / "here", url, **more) == found
    assert (tmp_path / "here" / "run" / "checkpoints" / "2").is_dir()
