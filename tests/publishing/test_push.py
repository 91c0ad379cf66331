"""Publishing and fetching through real HTTP: the real client against a local stand-in for the Hub."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import GOLDENS, same
from hub_server import TOKEN, Hub, point_at, published
from safetensors.numpy import load
from tiny_run import tiny_run

from elfcli.errors import ElfError, InputError
from elfcli.publishing.export import ExportOptions, export
from elfcli.publishing.mirror import Mirror, mirror
from elfcli.publishing.push import push
from elfcli.sampling.model import load_model
from elfcli.weights.open import open_source
from elfcli.weights.settings import config_of

REPO = "org/toy"


def test_what_is_published_is_reported_and_can_be_read(hub):
    reported: list[str] = []
    address = push(tiny_run(), REPO, private=True, report=reported.append)
    assert address.startswith(f"{hub.url}/{REPO}/commit/") and hub.repos[REPO].private
    files = published(hub, REPO)
    for path, data in files.items():
        assert any(path in line and f"{len(data):,}" in line for line in reported), f"{path} was not reported"
    source = open_source(REPO)
    assert same(source.params, open_source(tiny_run()).params)
    assert source.description.endswith("from the Hub") and REPO in source.description


def test_what_is_on_the_hub_is_not_sent_again(hub):
    push(tiny_run(), REPO)
    sent = hub.count("PUT /lfs/")
    assert sent >= 1
    push(tiny_run(), REPO)
    assert hub.count("PUT /lfs/") == sent


@pytest.mark.parametrize("how", [503, "cut"])
@pytest.mark.parametrize("where", ["PUT /lfs/", "/commit/", "repos/create", "/preupload/", "whoami"])
def test_an_upload_survives_a_failing_hub(hub, where, how):
    hub.fail(where, 2, how)
    push(tiny_run(), REPO)
    assert "model.safetensors" in published(hub, REPO)


def test_an_upload_that_keeps_failing_is_continued(hub):
    hub.fail("/commit/", 1000)
    with pytest.raises(ElfError, match=REPO) as error:
        push(tiny_run(), REPO)
    assert "\n" not in str(error.value)
    sent = hub.count("PUT /lfs/")
    hub.failures.clear()
    push(tiny_run(), REPO)
    assert "model.safetensors" in published(hub, REPO) and hub.count("PUT /lfs/") == sent


@pytest.mark.parametrize("how", [503, "cut"])
def test_a_download_survives_a_failing_hub(hub, how):
    push(tiny_run(), REPO)
    hub.fail(r"GET /api/models", 2, how)
    hub.fail(r"GET /org/toy/resolve/.*safetensors", 1, how)
    assert same(open_source(REPO).params, open_source(tiny_run()).params)


def test_revisions_and_all_checkpoints(hub):
    push(tiny_run(), REPO)
    push(tiny_run(), REPO, revision="steps", options=ExportOptions(steps="all"))
    assert not any(path.startswith("checkpoints/") for path in published(hub, REPO))
    assert {f"checkpoints/{s}/model.safetensors" for s in (1, 2, 3)} <= published(hub, REPO, branch="steps").keys()
    assert same(open_source(f"{REPO}@steps", step=2).params, open_source(tiny_run(), step=2).params)
    assert not (Path(open_source(f"{REPO}@steps").folder) / "checkpoints" / "1").exists(), "fetched without need"
    with pytest.raises(InputError, match="'nope'"):
        open_source(f"{REPO}@nope")


@pytest.mark.parametrize(
    ("repo", "token", "private", "part"),
    [
        (REPO, "wrong", False, "hf auth login"),
        (REPO, None, False, "hf auth login"),
        ("forbidden/toy", TOKEN, False, "forbidden/toy.*/settings/tokens"),
        ("a b c", TOKEN, False, "a b c.*ORG/NAME"),
        ("org/public", TOKEN, True, "org/public.*--private"),
    ],
)
def test_what_the_user_can_fix_is_one_line(hub, monkeypatch, repo, token, private, part):
    hub.add("org/public", {"README.md": b"mine"})
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=part) as error:
        push(tiny_run(), repo, private=private)
    assert "\n" not in str(error.value)
    assert "model.safetensors" not in published(hub, "org/public") and hub.count("PUT /lfs/") == 0


def test_nothing_but_the_model_is_uploaded(hub, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run(), run)
    for name in (".env", "tokenizer/.env", "tokenizer/token.txt", "wandb.key"):
        (run / name).write_text(f"HF_TOKEN={TOKEN}")
    push(run, REPO, options=ExportOptions(steps="all"))
    files = published(hub, REPO)
    assert not any(TOKEN.encode() in data for data in files.values())
    assert {Path(path).name for path in files} <= {
        *("README.md", "config.toml", "model.safetensors", "sampling.yaml", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "spiece.model", "tokenizer.model"),
    }


def test_an_exported_folder_is_published_unchanged(hub, tmp_path):
    source = open_source(tiny_run())
    folder = export(source, config_of(source), tmp_path / "out")
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nWritten by hand.\n")
    push(folder, REPO)
    assert published(hub, REPO)["README.md"] == card.read_bytes()
    card.write_text(card.read_text() + "hf_" + "Ab1" * 11)
    with pytest.raises(InputError, match=r"README\.md"):
        push(folder, REPO)


@pytest.mark.parametrize("kind", ["msgpack", "orbax"])
def test_the_published_layout_is_read_by_name(hub, kind):
    """The newest `checkpoint_<step>`, wherever it is in the repository, and nothing else of it."""
    folder = GOLDENS / f"checkpoint_{kind}"
    newest = {f"ckpt/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    hub.add("embedded-language-flows/ELF-B-owt", {**newest, "ckpt/checkpoint_5": b"old", "README.md": b"x"})
    source = open_source("ELF-B-owt")
    assert same(source.params, open_source(folder).params)
    assert source.step == 7 and hub.count("GET .*checkpoint_5$") == 0
    with pytest.raises(InputError, match="depth 12"):
        load_model("ELF-B-owt")
    with pytest.raises(InputError, match=r"step 6; .*5, 7"):
        open_source("ELF-B-owt", step=6)


def test_the_cache_serves_without_a_network(hub, monkeypatch):
    push(tiny_run(), REPO)
    online = open_source(REPO)
    point_at(monkeypatch, "http://127.0.0.1:9")
    assert same(open_source(REPO).params, online.params)
    with pytest.raises(InputError, match=r"org/other.*--checkpoint"):
        open_source("org/other")


def test_a_repository_without_a_model_is_refused(hub):
    hub.add("org/data", {"train.txt": b"text"})
    with pytest.raises(InputError, match="org/data"):
        open_source("org/data")
    with pytest.raises(InputError, match=r"org/nothing.*hf auth login"):
        open_source("org/nothing")


def test_a_mirror_reports_and_tries_again(hub, monkeypatch, capsys):
    hub.fail("/commit/", 1000)
    assert mirror(tiny_run(), REPO) is False
    hub.failures.clear()
    assert mirror(tiny_run(), REPO) is True and hub.repos[REPO].private
    assert capsys.readouterr().err.count(f"mirrored to {REPO}") == 2
    hub.add("org/public", {"README.md": b"mine"})
    assert mirror(tiny_run(), "org/public") is True and not hub.repos["org/public"].private
    monkeypatch.delenv("HF_TOKEN")
    assert mirror(tiny_run(), REPO) is False and "hf auth login" in capsys.readouterr().err
    assert mirror("no/such/run", REPO) is False


def test_a_running_mirror_is_not_started_twice(hub, capsys):
    going = threading.Event()
    busy = threading.Thread(target=going.wait, daemon=True)
    busy.start()
    uploader, manager = (
        Mirror(REPO, tiny_run()),
        SimpleNamespace(is_saving_in_progress=lambda: False, latest_step=lambda: 3),
    )
    uploader.thread = busy
    uploader.look(manager)
    assert uploader.thread is busy
    going.set()
    busy.join()
    uploader.look(manager)
    thread = uploader.thread
    assert thread.daemon
    thread.join(60)
    uploader.look(manager)
    assert capsys.readouterr().err.count(REPO) == 1 and REPO in hub.repos and uploader.thread is thread


def elf(arguments, home, endpoint, **environment):
    """(exit code, stdout, stderr, seconds) of the command line with its own empty cache."""
    start = time.monotonic()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ELF_"))}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "elfcli", *map(str, arguments)], env={**clean, **settings}, cwd=home,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr, time.monotonic() - start


def test_the_commands_from_one_machine_to_another(tmp_path):
    """`push-to-hub` here, `sample` by name in a fresh cache there: the same file of texts."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"input": f"ein wort {i} und 2"}) + "\n" for i in range(3)))
    sampling = ["--input", tmp_path / "in.jsonl", "--steps", "2", "--output", "out.jsonl"]
    with Hub() as hub:
        code, out, err, _ = elf(["push-to-hub", tiny_run(), REPO], here, hub.url, HF_TOKEN=TOKEN)
        assert code == 0, err
        assert out.startswith(hub.url) and out.count("\n") == 1 and "model.safetensors" in err
        weights = published(hub, REPO)["model.safetensors"]
        assert len(load(weights)) > 20
        assert elf(["sample", "--checkpoint", tiny_run(), *sampling], here, hub.url)[0] == 0
        code, _, err, _ = elf(["sample", "--checkpoint", REPO, *sampling], there, hub.url)
        assert code == 0, err
    assert (here / "out.jsonl").read_bytes() == (there / "out.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sample", "--checkpoint", "ELF-B-owt", "--num-samples", "1"], "--checkpoint"),
        (["push-to-hub", "RUN", REPO], "`elf export"),
    ],
)
def test_without_a_network_commands_end_soon_with_one_line(tmp_path, arguments, part):
    given = [str(tiny_run()) if argument == "RUN" else argument for argument in arguments]
    code, out, err, seconds = elf(given, tmp_path, "http://127.0.0.1:9", HF_TOKEN=TOKEN)
    assert code in (1, 2) and out == "" and err.count("\n") == 1 and err.startswith("error: ") and part in err
    assert "Traceback" not in err and seconds < 30
