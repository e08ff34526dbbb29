"""A plan that cannot work is named when it is read, key by key; what planners make is never named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.core.errors import PlanError
from autoseg.core.workspace import Workspace
from autoseg.planning.files import PLAN_FILE, load_plan

WRONG: list[tuple[str, Any, str]] = [
    ("patch_size", [8, 15, 16], r"\[2, 2, 2\].*\[8, 16, 16\]"),
    ("patch_size", [2, 2, 2], "a single voxel"),
    ("patch_size", [16, 16], "3 edges"),
    ("patch_size", [0, 16, 16], "3 edges"),
    ("batch_size", 0, "at least 1"),
    ("spacing", [1.0, -1.0, 1.0], "3 positive numbers"),
    ("spacing", [1.0, 1.0], "3 positive numbers"),
    ("spacing", [2.0, 0.01, 0.01], "within a factor of 30"),
    ("median_shape", [0, 1, 1], "3 positive numbers"),
    ("normalization", [], "1, one per channel"),
    ("use_mask_for_norm", [True, False], "1, one per channel"),
    ("name", "other", "'3d_fullres'"),
    ("previous_stage", "gone", "a configuration"),
    ("topology.features", [8], "2 numbers"),
    ("topology.decoder_blocks", [1, 1], "1 numbers"),
    ("topology.strides", [[2, 2, 2], [1, 1, 1]], "1 for every axis of the first stage"),
    ("topology.strides", [[1, 1, 1], [2, 2]], "3 numbers"),
    ("topology.strides", [], "2 or 3 numbers"),
    ("topology.kernels", [[3, 3, 3], [2, 3, 3]], "3 odd numbers"),
]


@pytest.fixture
def plan_file(toy_workspace: Workspace, tmp_path: Path) -> Path:
    path = tmp_path / PLAN_FILE
    path.write_bytes((toy_workspace.preprocessed("Dataset900_Toy") / PLAN_FILE).read_bytes())
    return path


def edit(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    place = content["configurations"]["3d_fullres"]
    *above, last = key.split(".")
    for name in above:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("key", "value", "expected"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_an_edit_that_cannot_work_is_named(plan_file, key, value, expected):
    edit(plan_file, key, value)
    with pytest.raises(PlanError, match=rf"configurations\.3d_fullres\.{key}: .*{expected}"):
        load_plan(plan_file)


def test_all_faults_are_named_and_the_way_back_at_the_end(plan_file):
    edit(plan_file, "batch_size", 0)
    edit(plan_file, "patch_size", [7, 7, 7])
    with pytest.raises(PlanError) as caught:
        load_plan(plan_file, "autoseg_plan_and_preprocess D")
    lines = str(caught.value).splitlines()
    assert ["batch_size" in lines[0], "patch_size" in lines[1]] == [True, True]
    assert lines[-1].endswith("autoseg_plan_and_preprocess D --replan")


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 7), ("patch_size", [4, 32, 2]), ("spacing", [3.0, 0.5, 0.5])], ids=str
)
def test_an_edit_that_works_is_taken(plan_file, key, value):
    edit(plan_file, key, value)
    found = getattr(load_plan(plan_file).configuration("3d_fullres"), key)
    assert (list(found) if isinstance(found, tuple) else found) == value
