"""The rules of the house that a machine can keep: layers, torch-free packages, formats only in io, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import autoseg

PACKAGE = Path(autoseg.__file__).parent
LAYERS = {
    "core": 0,
    **dict.fromkeys(("dataset", "nn", "augmentation"), 1),
    **dict.fromkeys(("io", "tasks"), 2),
    "cases": 3,
    **dict.fromkeys(("annotation", "evaluation", "sampling"), 4),
    **dict.fromkeys(("preprocessing", "simulation"), 5),
    **dict.fromkeys(("inspection", "inference", "report"), 6),
    "planning": 7,
    **dict.fromkeys(("assist", "interop", "training"), 8),
    "cli": 9,
}
TOP = {"api": 10}
"""Modules of the package itself, beside ``__init__``: what users import, and nothing below does."""
TORCH_FREE = (
    "core", "dataset", "io", "tasks", "cases", "annotation", "simulation", "preprocessing", "evaluation", "inspection",
    "planning", "report", "interop",
)  # fmt: skip
FORMAT_LIBRARIES = {
    "SimpleITK",
    "nibabel",
    "imageio",
    "tifffile",
    "PIL",
    "h5py",
    "zarr",
    "cv2",
    "tensorstore",
    "yaozarrs",
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
CLI_ONLY = {"print", "sys.exit", "os.environ", "os.getenv", "exit", "argparse", "typer"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}", node


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_package_has_a_layer() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LAYERS)


def test_imports_go_down() -> None:
    for module in MODULES:
        own = package_of(module)
        for name, _ in imports(parsed(module)):
            assert not name.startswith("."), f"{name_of(module)}: relative import {name}"
            if own and name.startswith("autoseg."):
                other = name.split(".")[1]
                is_lower = other == own or (LAYERS | TOP)[other] < LAYERS[own]
                assert is_lower, f"{name_of(module)} imports {name}"


def test_no_module_imports_itself_through_others() -> None:
    """Imports for type checkers count, too."""
    dotted = {module: "autoseg." + name_of(module).removesuffix(".py").replace("/", ".") for module in MODULES}
    names = {module: name.removesuffix(".__init__") for module, name in dotted.items()}
    graph: dict[str, set[str]] = {}
    for module, own in names.items():
        targets: set[str] = set()
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[own] = {target for target in targets & {*names.values()} if not f"{own}.".startswith(f"{target}.")}
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle of imports: {' -> '.join((*path, name))}"
        if name not in finished:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            finished.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_the_functions_and_the_commands_use_the_same_code_and_not_each_other() -> None:
    assert not [name for name, _ in imports(parsed(PACKAGE / "api.py")) if name.startswith("autoseg.cli")]


def test_own_modules_are_imported_at_the_top_except_by_commands() -> None:
    """A command imports what it needs when it runs, so that --help is quick; so does ``autoseg`` itself."""
    for module in MODULES:
        if not package_of(module) or package_of(module) == "cli":
            continue
        tree = parsed(module)
        nested = [name for name, node in imports(tree) if name.startswith("autoseg") and node not in tree.body]
        guarded = [
            name
            for item in tree.body
            if isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING"
            for name, _ in imports(item)
        ]
        assert sorted(nested) == sorted(name for name in guarded if name.startswith("autoseg")), name_of(module)


def test_only_io_knows_file_formats() -> None:
    for module in MODULES:
        roots = {name.split(".")[0] for name, _ in imports(parsed(module))}
        assert package_of(module) == "io" or not roots & FORMAT_LIBRARIES, name_of(module)


def test_nothing_is_pickled_or_evaluated() -> None:
    for module in MODULES:
        tree = parsed(module)
        assert not {name.split(".")[0] for name, _ in imports(tree)} & FORBIDDEN_MODULES, name_of(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert called(node) not in FORBIDDEN_CALLS, f"{name_of(module)}: {ast.unparse(node)}"
                for keyword in node.keywords:
                    is_unsafe = keyword.arg in ("weights_only", "allow_pickle")
                    value = getattr(keyword.value, "value", None)
                    assert not is_unsafe or value is (keyword.arg == "weights_only"), ast.unparse(node)
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{name_of(module)}: bare except"


def called(node: ast.Call) -> str:
    """Return the name of what is called, "" where it has none."""
    return node.func.id if isinstance(node.func, ast.Name) else ""


def test_only_commands_talk_to_the_terminal_and_the_environment() -> None:
    for module in MODULES:
        if package_of(module) == "cli":
            continue
        nodes = [node for node in ast.walk(parsed(module)) if isinstance(node, ast.Name | ast.Attribute)]
        used = {dotted(node) for node in nodes} & CLI_ONLY
        assert not used, f"{name_of(module)}: {used}"


def dotted(node: ast.Name | ast.Attribute) -> str:
    """Return ``name`` or ``name.attribute``, "" for longer expressions."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else ""


def test_no_assert_in_the_package() -> None:
    for module in MODULES:
        assert not [node for node in ast.walk(parsed(module)) if isinstance(node, ast.Assert)], name_of(module)


def test_docstrings_of_modules_begin_with_a_noun() -> None:
    for module in MODULES:
        first = (ast.get_docstring(parsed(module)) or "").partition(" ")[0]
        assert first not in {"What", "How", "Where", "Who", "When", "Which", "Why"}, name_of(module)


def test_files_functions_and_classes_are_short() -> None:
    for module in MODULES:
        assert module.read_text(encoding="utf-8").count("\n") <= 400, name_of(module)
        assert module.name != "utils.py"
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                length = (body[-1].end_lineno or 0) - body[0].lineno
                assert length < 60, f"{name_of(module)}: {node.name}"
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 200, f"{name_of(module)}: {node.name}"
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                assert len(methods) <= 12, f"{name_of(module)}: {node.name}"


def test_only_the_public_functions_lie_beside_the_packages() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", *TOP}


def test_public_names_are_sorted_and_there() -> None:
    assert len(autoseg.__all__) <= 25
    assert list(autoseg.__all__) == sorted(autoseg.__all__)
    assert all(hasattr(autoseg, name) for name in autoseg.__all__)


def test_importing_the_package_imports_nothing_that_takes_time() -> None:
    code = (
        "import sys, autoseg, autoseg.api; sys.exit(bool({'numpy', 'torch', 'pydantic', 'typer'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torch_free_packages_do_not_import_torch() -> None:
    """All in one process: the first package after which torch is loaded is named."""
    names = [
        ".".join(("autoseg", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for package in TORCH_FREE
        for path in MODULES
        if package_of(path) == package
    ]
    check = "importlib.import_module(name); 'torch' in sys.modules and sys.exit(name)"
    code = f"import sys, importlib\nfor name in {names}: {check}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_files_of_tests_have_names_of_their_own() -> None:
    """Folders of tests are no packages, so pytest refuses a second file of a name when it collects them together."""
    here = Path(__file__).parent
    files = [*here.rglob("test_*.py"), *(here.parent / "scripts").rglob("test_*.py")]
    assert len({file.name for file in files}) == len(files), sorted(file.name for file in files)
