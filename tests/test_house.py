"""The rules of the house: which way imports run, what which room may do, and sizes that a reader can hold in mind."""

import ast
import os
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "elfcli"
LAYERS = (
    ("errors", "ui"),
    ("config", "outputs", "hub_access", "parallel"),
    ("data", "optimizer", "flow", "models"),
    ("corpus", "runs"),
    ("weights",),
    ("scoring", "publishing"),
    ("sampling",),
    ("evaluation", "diagnosis", "recipe"),
    ("training",),
    ("planning",),
    ("metrics",),
    ("cli",),
    ("api",),
    ("__main__", "__init__"),
)
"""Rooms from the lowest up; a file imports from lower rooms and from its own."""
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
PURE = ("flow", "models")
"""Rooms of functions of arrays: they read no file, know no process and print nothing."""
NOT_PURE = {"os", "sys", "io", "pathlib", "shutil", "socket", "subprocess", "tempfile", "multiprocessing"}
READS_ENVIRONMENT = (
    "config/resolve.py",
    "corpus/encode.py",
    "parallel/",
    "planning/slices.py",
    "runs/",
    "ui/",
    "__main__.py",
)
TALKS = (
    "cli/",
    "parallel/",
    "training/start.py",
    "evaluation/",
    "sampling/",
    "scoring/judge.py",
    "scoring/perplexity.py",
    "runs/checkpoint.py",
)
"""Where processes exchange what they decide; elsewhere code computes the same in all and writes in process 0."""
EXCHANGES = {"broadcast_from_first", "run_on_all", "assert_same_on_all"}
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
PATH_LINES = 2000
PATH = ("models/", "flow/", "training/loop.py", "training/step.py", "optimizer.py", "data/batches.py")
"""What a reader follows to understand ELF; beside it, students and other judges than GPT-2 are read by themselves."""
BESIDE_IT = ("models/llama.py", "flow/distill.py")
Function = ast.FunctionDef | ast.AsyncFunctionDef


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


def name_of(path: Path) -> str:
    """The file's path within the package."""
    return path.relative_to(PACKAGE).as_posix()


def nodes(*kinds, outside: tuple[str, ...] = (), inside: tuple[str, ...] = ("",)):
    """(place, node) of every node of these kinds in the files that `inside` and not `outside` begin the path of."""
    for path in files():
        if name_of(path).startswith(inside) and not (outside and name_of(path).startswith(outside)):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, kinds):
                    yield f"{name_of(path)}:{node.lineno}", node


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def assert_none(wrong: list[str]) -> None:
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_compiled_programs_are_kept_between_test_runs():
    """JAX reads where to when it is imported, so nothing that conftest.py imports may import it first."""
    import jax

    assert jax.config.jax_compilation_cache_dir == os.environ["JAX_COMPILATION_CACHE_DIR"]


def test_flow_and_models_read_no_file_know_no_process_and_print_nothing():
    inside, wrong = tuple(f"{room}/" for room in PURE), []
    for place, node in nodes(ast.Import, ast.ImportFrom, inside=inside):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        wrong += [f"{place} imports {name}" for name in names if name.split(".")[0] in NOT_PURE]
    for place, call in nodes(ast.Call, inside=inside):
        if called(call) in {"open", "print", "process_index", "process_count", "read_text", "read_bytes", "write_text"}:
            wrong.append(f"{place} calls {called(call)}")
    assert_none(wrong)


def test_the_environment_is_read_in_few_places():
    wrong = []
    for place, node in nodes(ast.Attribute, ast.alias, outside=READS_ENVIRONMENT):
        name = node.attr if isinstance(node, ast.Attribute) else node.name
        if name in {"environ", "getenv", "environb"}:
            wrong.append(f"{place} reads the environment")
    assert_none(wrong)


def test_processes_exchange_their_decisions_in_few_places():
    calls = nodes(ast.Call, outside=TALKS)
    assert_none([f"{place} calls {called(call)}" for place, call in calls if called(call) in EXCHANGES])


def test_modules_are_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert_none([f"{name}: {length} lines" for name, length in lengths.items() if length > MODULE_LINES])


def test_the_way_to_understand_elf_is_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    on_it = {name: count for name, count in lengths.items() if name.startswith(PATH) and name not in BESIDE_IT}
    assert len(on_it) > len(PATH) and sum(on_it.values()) <= PATH_LINES
    assert lengths["flow/objective.py"] < 200


def test_functions_are_short():
    """Of a command in cli/ the body counts; its parameters are its options."""
    wrong = []
    for place, function in nodes(Function):
        first = function.body[0].lineno if place.startswith("cli/") else function.lineno
        if (length := function.end_lineno - first + 1) > FUNCTION_LINES:
            wrong.append(f"{place} {function.name}: {length} lines")
    assert_none(wrong)


def test_functions_take_few_parameters():
    """Pallas hands a kernel each of its arrays by itself, so kernels are not counted."""
    wrong = []
    for place, function in nodes(Function, outside=("cli/", "api.py")):
        given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        count = len([one for one in given if one.arg not in ("self", "cls")])
        if count > PARAMETERS and not function.name.endswith("_kernel"):
            wrong.append(f"{place} {function.name}: {count} parameters")
    assert_none(wrong)
