"""Components of a user: what cannot be used is named, with the reason and the user's line, before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.augmentation.recipes import named_recipe
from autoseg.core.components import call_component, is_own, resolve
from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.registry import build_network
from autoseg.planning.memory import feature_map_values

MODULE = """
import helper_of_a_user

broken = object()
number = 3

def no_recipe(configuration):
    return None

def one_argument(first):
    return helper_of_a_user.half(first)

class Counts:
    def __init__(self, count):
        self.count = count

    def feature_map_values(self, topology, patch_size, n_outputs):
        return self.count

nothing, negative, seven = Counts(None), Counts(-1), Counts(7.5)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts_of_a_user.py").write_text(MODULE)
    (tmp_path / "helper_of_a_user.py").write_text("def half(number):\n    return 1 / number\n")
    (tmp_path / "misspelt_by_a_user.py").write_text("def f(:\n")
    (tmp_path / "lacking_of_a_user.py").write_text("import os\nimport numpyy\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def topology(kind: str) -> Topology:
    return Topology(
        kind=kind, features=(4,), strides=((1, 1),), kernels=((3, 3),), encoder_blocks=(1,), decoder_blocks=()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"found 'nothing', expected one of \['one'\]"),
        ("no_such_module:part", r"No module named 'no_such_module', .*or that its folder is on PYTHONPATH"),
        ("parts_of_a_user:part", "has no attribute 'part'"),
        ("misspelt_by_a_user:f", r"SyntaxError: .*misspelt_by_a_user\.py, line 1"),
        ("lacking_of_a_user:f", r"No module named 'numpyy' \(.*lacking_of_a_user\.py, line 2\).*Correct it there"),
        ("./parts_of_a_user.py:number", "expected package.module:attribute, not a path"),
        ("parts_of_a_user.py:number", "expected package.module:attribute, not a path"),
        (":number", "expected package.module:attribute, not a path"),
        ("parts_of_a_user:", "expected package.module:attribute, not a path"),
        ("parts_of_a_user:number", "found an object of int, expected a function or a class"),
    ],
)
def test_an_unknown_component_is_named_with_the_reason(name, message):
    with pytest.raises(ConfigError, match=message) as raised:
        resolve("loss", name, {"one": 1}, needs=("__call__",))
    assert str(raised.value).startswith("loss") and "\n" not in str(raised.value)


def test_components_that_lack_an_attribute_are_named():
    with pytest.raises(ConfigError, match="found object without build"):
        build_network(topology("parts_of_a_user:broken"), 1, 2)
    with pytest.raises(ConfigError, match="found object without feature_map_values"):
        feature_map_values(topology("parts_of_a_user:broken"), (8, 8), 2)
    with pytest.raises(ConfigError, match="found NoneType, expected a function that returns"):
        named_recipe("parts_of_a_user:no_recipe", None)


def test_a_class_in_the_place_of_an_object_is_named_with_what_to_write():
    with pytest.raises(ConfigError, match=r"Counts is a class.* NAME = Counts\(\)"):
        feature_map_values(topology("parts_of_a_user:Counts"), (8, 8), 2)


def test_a_count_of_feature_map_values_is_a_positive_number():
    assert feature_map_values(topology("parts_of_a_user:seven"), (8, 8), 2) == 7
    for name in ("nothing", "negative"):
        with pytest.raises(ConfigError, match=f"'parts_of_a_user:{name}': feature_map_values returned"):
            feature_map_values(topology(f"parts_of_a_user:{name}"), (8, 8), 2)


def test_an_exception_of_a_user_is_chained_with_file_and_line_of_the_user():
    import parts_of_a_user

    name, function = "parts_of_a_user:one_argument", parts_of_a_user.one_argument
    assert call_component("loss", name, function, 2) == 0.5
    with pytest.raises(
        ConfigError, match=r"loss '.*:one_argument': .*ZeroDivision.*helper_of_a_user\.py, line 2"
    ) as it:
        call_component("loss", name, function, 0)
    assert isinstance(it.value.__cause__, ZeroDivisionError)


def test_a_wrong_signature_is_named_with_the_place_of_the_function():
    import parts_of_a_user

    with pytest.raises(ConfigError, match=r"parts_of_a_user\.py, line 10.*with 0 arguments"):
        call_component("loss", "parts_of_a_user:one_argument", parts_of_a_user.one_argument)


def test_errors_of_autoseg_and_a_lack_of_memory_are_not_those_of_the_user():
    def fail(error):
        raise error

    for error in (PlanError("x"), MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})()):
        with pytest.raises(type(error)):
            call_component("loss", "own", fail, error)
    with pytest.raises(ConfigError, match=r"^loss 'own': wrong number$"):  # raised for something that it made
        call_component("loss", "own", fail, ConfigError("wrong number"))
    assert is_own(resolve) and is_own(topology("plain")) and not is_own(fail) and not is_own(3)
    with pytest.raises(TypeError):  # a bug of autoseg keeps its traceback
        call_component("loss", "own", resolve)
