"""Components of a user: what cannot be used is named, with the reason, before anything is done with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.augmentation.recipes import named_recipe
from autoseg.core.components import resolve
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.registry import build_network
from autoseg.planning.memory import feature_map_values

MODULE = """
broken = object()


class WithoutNetwork:
    def build(self, topology, n_channels, n_outputs):
        return None


without_network = WithoutNetwork()


def no_recipe(configuration):
    return None
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts_of_a_user.py").write_text(MODULE)
    (tmp_path / "misspelt_by_a_user.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def topology(kind: str) -> Topology:
    return Topology(
        kind=kind, features=(4,), strides=((1, 1),), kernels=((3, 3),), encoder_blocks=(1,), decoder_blocks=()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"found 'nothing', expected one of \['one'\]"),
        ("no_such_module:part", "No module named 'no_such_module'"),
        ("parts_of_a_user:part", "has no attribute 'part'"),
        ("misspelt_by_a_user:f", "SyntaxError: "),
    ],
)
def test_an_unknown_component_is_named_with_the_reason(name, message):
    with pytest.raises(ConfigError, match=message):
        resolve("loss", name, {"one": 1})


def test_components_that_lack_an_attribute_are_named():
    with pytest.raises(ConfigError, match="found object without build"):
        build_network(topology("parts_of_a_user:broken"), 1, 2)
    with pytest.raises(ConfigError, match="found object without feature_map_values"):
        feature_map_values(topology("parts_of_a_user:broken"), (8, 8), 2)
    with pytest.raises(ConfigError, match="found a NoneType, expected an autoseg"):
        build_network(topology("parts_of_a_user:without_network"), 1, 2)
    with pytest.raises(ConfigError, match="found NoneType, expected a function that returns"):
        named_recipe("parts_of_a_user:no_recipe", None)
