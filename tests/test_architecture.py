"""The rules of the house that a machine can keep: layers, torch-free packages, formats only in io, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import autoseg

PACKAGE = Path(autoseg.__file__).parent
LAYERS = {
    "core": 0,
    **dict.fromkeys(("dataset", "nn", "augmentation"), 1),
    **dict.fromkeys(("io", "tasks"), 2),
    "cases": 3,
    **dict.fromkeys(("annotation", "evaluation", "sampling"), 4),
    **dict.fromkeys(("preprocessing", "simulation"), 5),
    **dict.fromkeys(("inspection", "inference"), 6),
    **dict.fromkeys(("planning", "assist"), 7),
    **dict.fromkeys(("interop", "training", "report"), 8),
    "cli": 9,
}
TOP = {"api": 10}
"""Modules of the package itself, beside ``__init__``: what users import, and nothing below does."""
TORCH_FREE = (
    "core", "dataset", "io", "tasks", "cases", "annotation", "simulation", "preprocessing", "evaluation", "inspection",
    "planning", "report", "interop",
)  # fmt: skip
FORMAT_LIBRARIES = {"SimpleITK", "nibabel", "imageio", "tifffile", "PIL", "h5py", "zarr", "cv2"}
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


@pytest.fixture(params=MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def module(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_package_has_a_layer() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LAYERS)


def test_imports_go_down(module: Path) -> None:
    own = package_of(module)
    for name, _ in imports(parsed(module)):
        assert not name.startswith("."), f"{module}: relative import {name}"
        if own and name.startswith("autoseg."):
            other = name.split(".")[1]
            assert other == own or (LAYERS | TOP)[other] < LAYERS[own], f"{own} imports {name}"


def test_own_modules_are_imported_at_the_top_except_by_commands(module: Path) -> None:
    """A command imports what it needs when it runs, so that --help is quick; so does ``autoseg`` itself."""
    if not package_of(module) or package_of(module) == "cli":
        return
    tree = parsed(module)
    nested = [name for name, node in imports(tree) if name.startswith("autoseg") and node not in tree.body]
    guarded = [
        name
        for item in tree.body
        if isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING"
        for name, _ in imports(item)
    ]
    assert sorted(nested) == sorted(name for name in guarded if name.startswith("autoseg"))


def test_only_io_knows_file_formats(module: Path) -> None:
    roots = {name.split(".")[0] for name, _ in imports(parsed(module))}
    assert package_of(module) == "io" or not roots & FORMAT_LIBRARIES


def test_nothing_is_pickled_or_evaluated(module: Path) -> None:
    tree = parsed(module)
    assert not {name.split(".")[0] for name, _ in imports(tree)} & FORBIDDEN_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS
            for keyword in node.keywords:
                is_unsafe = keyword.arg in ("weights_only", "allow_pickle")
                value = getattr(keyword.value, "value", None)
                assert not is_unsafe or value is (keyword.arg == "weights_only"), ast.unparse(node)
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{module}: bare except"


def test_only_commands_talk_to_the_terminal_and_the_environment(module: Path) -> None:
    if package_of(module) == "cli":
        return
    used = {ast.unparse(node) for node in ast.walk(parsed(module)) if isinstance(node, ast.Name | ast.Attribute)}
    assert not used & CLI_ONLY


def test_no_assert_in_the_package(module: Path) -> None:
    assert not [node for node in ast.walk(parsed(module)) if isinstance(node, ast.Assert)]


def test_files_functions_and_classes_are_short(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert module.name != "utils.py"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            assert (body[-1].end_lineno or 0) - body[0].lineno < 60, f"{module}: {node.name}"
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < 200, f"{module}: {node.name}"
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            assert len(methods) <= 12, f"{module}: {node.name}"


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
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
