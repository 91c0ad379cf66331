"""The rules of the house: which way imports run, what which room may do, sizes, names and plain English."""

import ast
import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "elfcli"
LAYERS = (
    ("errors", "ui"),
    ("config", "outputs", "hub_access", "parallel"),
    ("data", "optimizer", "flow", "models"),
    ("corpus", "runs"),
    ("weights",),
    ("scoring",),
    ("publishing",),
    ("sampling",),
    ("evaluation", "diagnosis", "recipe"),
    ("training",),
    ("planning",),
    ("api",),
    ("cli",),
    ("__main__", "__init__"),
)
"""Rooms from the lowest up; a file imports from lower rooms and from its own."""
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
PURE = ("flow", "models")
"""Rooms of functions of arrays: they read no file, know no process and print nothing."""
NOT_PURE = {"os", "sys", "io", "pathlib", "shutil", "socket", "subprocess", "tempfile", "multiprocessing"}
NO_MODEL = ("elfcli.models.elf", "elfcli.models.build", "elfcli.flow", "elfcli.runs")
"""What scoring does not import: it knows no ELF network and no run."""
READS_ENVIRONMENT = (
    "config/resolve.py",
    "corpus/encode.py",
    "parallel/",
    "planning/slices.py",
    "runs/",
    "ui/",
    "__main__.py",
)
EXCHANGES = {"broadcast_from_first", "run_on_all", "assert_same_on_all"}
TALKS = (
    "api.py",
    "cli/",
    "parallel/",
    "training/start.py",
    "evaluation/",
    "sampling/",
    "scoring/",
    "runs/checkpoint.py",
)
"""Where processes exchange what they decide; elsewhere code computes the same in all and writes in process 0."""
ROOM_FILES, MODULE_LINES, FUNCTION_LINES, PARAMETERS = 16, 400, 60, 8
PACKAGE_LINES = 22_970  # raise it for a feature, lower it with every simplification
PATH_LINES = 2000
PATH = ("models/", "flow/", "training/loop.py", "training/step.py", "optimizer.py", "data/batches.py")
"""What a reader follows to understand ELF; next to it, students, known text, other judges than GPT-2, other encoders
than T5 and kernels."""
NEXT_TO_IT = (
    "models/llama.py",
    "models/t5gemma.py",
    "models/tpu_attention.py",
    "models/tpu_products.py",
    "models/gpu_layers.py",
    "flow/distill.py",
    "flow/known_text.py",
    "flow/mmd.py",
)
SHAPED = ("flow/", "models/", "training/step.py", "sampling/generate.py")
"""Where arrays of more than one axis carry their shape in their name."""
WORDS = re.compile(
    r"\b(?:mends?|at hand|told|goes on|go on|of one's own|(?<!there )is no|so many|need not be|by heart|puts? down"
    r"|optimis\w*|tokenis\w*|normalis\w*|initialis\w*|distil)\b",
    re.IGNORECASE,
)
"""Wordings that English readers stumble over, and second spellings of the field's words."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path: Path) -> str:
    """The file's path within the package."""
    return path.relative_to(PACKAGE).as_posix()


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module: str) -> str:
    return module.split(".")[0]


def imported_names(tree: ast.AST) -> list[str]:
    """Everything that a file imports, also inside functions, as dotted names."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imports_of(tree: ast.AST, known: set[str]) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for name in imported_names(tree):
        parts = name.split(".")
        if parts[0] == "elfcli":
            candidates = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            packages = [f"{candidate}.__init__" for candidate in candidates]
            found |= {next((c for c in [*candidates, *packages] if c in known), "__init__")}
    return found - {"__init__"}  # the version; it imports nothing


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = {module_of(path) for path in TREES}
    return {module_of(path): imports_of(tree, known) for path, tree in TREES.items()}


def nodes(*kinds, outside: tuple[str, ...] = (), inside: tuple[str, ...] = ("",)):
    """(place, node) of every node of these kinds in the files that `inside` and not `outside` begin the path of."""
    for path, tree in TREES.items():
        if name_of(path).startswith(inside) and not (outside and name_of(path).startswith(outside)):
            for node in ast.walk(tree):
                if isinstance(node, kinds):
                    yield f"{name_of(path)}:{node.lineno}", node


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def assert_none(wrong: list[str]) -> None:
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_imports_run_one_way(graph):
    assert_none([
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if room_of(module) != room_of(other) and LEVEL[room_of(other)] >= LEVEL[room_of(module)]
    ])  # fmt: skip


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


def test_no_command_imports_a_command(graph):
    shared = {"cli.app", "cli.options", "cli.output", "cli.trace_output", "cli.__init__"}
    commands = {module for module in graph if room_of(module) == "cli"} - shared
    assert_none([f"{module} imports {other}" for module in commands for other in graph[module] & commands])


def test_flow_and_models_read_no_file_know_no_process_and_print_nothing():
    inside, wrong = tuple(f"{room}/" for room in PURE), []
    for place, node in nodes(ast.Import, ast.ImportFrom, inside=inside):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        wrong += [f"{place} imports {name}" for name in names if name.split(".")[0] in NOT_PURE]
    for place, call in nodes(ast.Call, inside=inside):
        if called(call) in {"open", "print", "process_index", "process_count", "read_text", "read_bytes", "write_text"}:
            wrong.append(f"{place} calls {called(call)}")
    assert_none(wrong)


def test_scoring_knows_no_elf_model_and_no_run():
    scoring = {path: tree for path, tree in TREES.items() if name_of(path).startswith("scoring/")}
    assert_none([f"{name_of(path)} imports {name}" for path, tree in scoring.items() for name in imported_names(tree)
                 if name.startswith(NO_MODEL)])  # fmt: skip


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


def test_rooms_and_files_are_small():
    """cli/ has a file per command."""
    rooms = defaultdict(int)
    for path in TREES:
        rooms[path.parent] += path.name != "__init__.py"
    lengths = {name_of(path): lines_of(path) for path in TREES}
    assert_none(
        [f"{room.name}/: {count} files" for room, count in rooms.items() if count > ROOM_FILES and room.name != "cli"]
        + [f"{name}: {length} lines" for name, length in lengths.items() if length > MODULE_LINES]
    )


def test_the_package_is_small():
    assert sum(map(lines_of, TREES)) <= PACKAGE_LINES


def test_the_path_to_understand_elf_is_short():
    lengths = {name_of(path): lines_of(path) for path in TREES}
    on_it = {name: count for name, count in lengths.items() if name.startswith(PATH) and name not in NEXT_TO_IT}
    assert len(on_it) > len(PATH) and sum(on_it.values()) <= PATH_LINES
    assert lengths["flow/objective.py"] <= 200


def test_functions_are_short():
    """Of a command in cli/ the body counts; its parameters are its options."""
    wrong = []
    for place, function in nodes(Function):
        first = function.body[0].lineno if place.startswith(("cli/", "api.py")) else function.lineno
        if (length := function.end_lineno - first + 1) > FUNCTION_LINES:
            wrong.append(f"{place} {function.name}: {length} lines")
    assert_none(wrong)


def test_functions_take_few_parameters():
    """Options of commands, and the arrays that Pallas hands a kernel one by one, are not counted."""
    wrong = []
    for place, function in nodes(Function, outside=("cli/", "api.py")):
        given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        count = len([one for one in given if one.arg not in ("self", "cls")])
        if count > PARAMETERS and not function.name.endswith("_kernel"):
            wrong.append(f"{place} {function.name}: {count} parameters")
    assert_none(wrong)


def test_class_names_are_unique():
    places = defaultdict(list)
    for place, node in nodes(ast.ClassDef):
        places[node.name].append(place)
    assert_none([f"{name}: {', '.join(found)}" for name, found in places.items() if len(found) > 1])


def test_arrays_carry_their_shape_in_their_name():
    """A parameter that is an array of more than one axis ends in its shape; names without one have no or one axis."""
    suffix = re.compile(r"_[A-Z0-9]+(x[A-Z0-9]+)*$")
    scalars = {"key", "t", "w", "rate", "gamma", "length", "num_steps", "weight", "values", "array", "active", "number"}
    any_rank = {*"xyzgabqkv", "position", "weights", "estimate", "mask", "cos", "sin"}  # the docstring says which
    wrong = []
    for place, function in nodes(Function, inside=SHAPED):
        for argument in function.args.args + function.args.kwonlyargs:
            kind = ast.unparse(argument.annotation) if argument.annotation else ""
            array = kind in ("jax.Array", "Array")
            if array and not suffix.search(argument.arg) and argument.arg.strip("_") not in scalars | any_rank:
                wrong.append(f"{place} {function.name}: {argument.arg}")
    assert_none(wrong)


def test_public_code_has_docstrings():
    wrong = [name_of(path) for path, tree in TREES.items() if not ast.get_docstring(tree)]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            members = node.body if isinstance(node, ast.Module | ast.ClassDef) else []
            public = [one for one in members if isinstance(one, Function | ast.ClassDef) and one.name[0] != "_"]
            wrong += [f"{name_of(path)}:{one.lineno} {one.name}" for one in public if not ast.get_docstring(one)]
    assert_none(wrong)


def test_words_that_readers_stumble_over():
    """Changelog and experiments quote old names and commands, so they are left out."""
    pages = [path for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"] if path.name != "experiments.md"]
    wrong = []
    for path in [*TREES, *pages]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = WORDS.findall(line)
            wrong += [f"{path.relative_to(ROOT)}:{number}: {word!r}" for word in found]
    assert_none(wrong)


def test_the_version_stands_in_one_place():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in text and "elfcli/__init__.py" in text


def test_compiled_programs_are_kept_between_test_runs():
    """JAX reads where to when it is imported, so nothing that conftest.py imports may import it first."""
    import jax

    assert jax.config.jax_compilation_cache_dir == os.environ["JAX_COMPILATION_CACHE_DIR"]
