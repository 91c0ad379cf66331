"""`elf doctor` without a model: installed packages, devices, caches and the Hub."""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from elfcli.diagnosis.checks import Check

MIN_DISK = 5e9
"""Free bytes below which a run may not have room for its checkpoints."""
PLUGINS = {"cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}
DEVICES = {"cuda": Path("/dev/nvidia0"), "tpu": Path("/dev/accel0")}


def installation() -> list[Check]:
    """Return a row per check, causes before their effects."""
    return [*packages(), *devices(), *places(), *hub()]


def first_to_fix(rows: list[Check]) -> str:
    """Return the advice of the first row that fails, otherwise of the first warning."""
    found = sorted((row for row in rows if row.advice), key=lambda row: row.verdict != "fail")
    return f"{found[0].check}: {found[0].advice}" if found else "no problems found"


def packages() -> Iterator[Check]:
    """Yield the installed versions of the requirements of elf."""
    import platform

    from packaging.requirements import Requirement

    yield Check("python", platform.python_version(), "3.11 to 3.13", "ok")
    for line in requires("elfcli") or ():
        wanted = Requirement(line)
        if wanted.marker is not None:  # of an extra
            continue
        try:
            found: str | None = version(wanted.name)
        except PackageNotFoundError:
            found = None
        fits = found is not None and wanted.specifier.contains(found, prereleases=True)
        fix = "" if fits else f"pip install '{wanted}'"
        yield Check(wanted.name, found or "missing", str(wanted.specifier), "ok" if fits else "fail", fix)
    jax, jaxlib = version("jax"), version("jaxlib")
    same = jax.split(".")[:2] == jaxlib.split(".")[:2]
    fix = "" if same else f"pip install 'jaxlib=={jax}'"
    yield Check("jaxlib", jaxlib, f"as jax {jax}", "ok" if same else "fail", fix)


def devices() -> Iterator[Check]:
    """Yield the devices visible to JAX, and hardware that it cannot use because a plugin is missing."""
    import jax

    from elfcli.parallel.memory import memory_of_device, size_text

    found, memory = jax.devices(), memory_of_device()
    kinds = f"{len(found)} {jax.default_backend()} ({found[0].device_kind})"
    unseen = [kind for kind, path in DEVICES.items() if path.exists() and jax.default_backend() == "cpu"]
    fix = f"pip install 'elfcli[{unseen[0]}]'" if unseen else ""
    if unseen and any(find_spec(name) for name in PLUGINS[unseen[0]]):
        fix = "the plugin is installed but does not work: run `python -c 'import jax; jax.devices()'` and see why"
    yield Check("devices", kinds, f"a {unseen[0]} device" if unseen else "", "fail" if unseen else "ok", fix)
    yield Check("memory of one", "-" if memory is None else size_text(memory), "", "ok")


def places() -> Iterator[Check]:
    """Yield the folders of cached files, and the free disk space."""
    import jax
    from huggingface_hub import constants

    from elfcli.parallel.backend import prepare
    from elfcli.parallel.memory import size_text

    prepare()
    yield Check("Hub cache", str(constants.HF_HUB_CACHE), "", "ok")
    yield Check("compiled programs", str(jax.config.jax_compilation_cache_dir), "", "ok")  # type: ignore[attr-defined]
    free = shutil.disk_usage(".").free
    low = free < MIN_DISK
    fix = "make room, or train elsewhere with --output" if low else ""
    yield Check("free disk", size_text(free), f"{size_text(MIN_DISK)} or more", "warn" if low else "ok", fix)


def hub() -> Iterator[Check]:
    """Yield whether the Hub answers, and whether there is a token; the token itself is not shown."""
    from huggingface_hub import constants, get_token

    from elfcli.hub_access import hub_reachable

    answers = hub_reachable()
    why = "offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else f"no answer from {constants.ENDPOINT}"
    fix = "" if answers else "only cached models can be opened; custom data and built-in tasks do not need the Hub"
    yield Check("Hub", "reachable" if answers else why, "reachable", "ok" if answers else "warn", fix)
    token = get_token() is not None
    yield Check("Hub token", "found" if token else "none", "to publish: `hf auth login`", "ok")
