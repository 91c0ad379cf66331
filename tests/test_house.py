"""The rules of the house: imports run one way, no circle, and sizes that a reader can hold in mind."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "elfcli"
LAYERS = (
    ("errors", "ui"),
    ("config", "data", "outputs", "parallel"),
    ("flow", "models", "runs"),
    ("hub",),
    ("evaluation",),
    ("training",),
    ("planning",),
    ("cli",),
    ("__main__", "__init__"),
)
"""Rooms from the lowest up; a file imports from lower rooms and from its own."""
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports_of(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "elfcli":
                candidates = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
                found |= {next((c for c in candidates if c in known), "__init__")}
    return found - {"__init__"}  # the version; it imports nothing


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = {module_of(path) for path in files()}
    return {module_of(path): imports_of(path, known) for path in files()}


def test_imports_run_one_way(graph):
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if room_of(module) != room_of(other) and LEVEL[room_of(other)] >= LEVEL[room_of(module)]
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_circle(graph):
    open_, done = [], set()

    def visit(module: str) -> None:
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module not in done:
            open_.append(module)
            for other in sorted(graph[module]):
                visit(other)
            done.add(open_.pop())

    for module in graph:
        visit(module)
