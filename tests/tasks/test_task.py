"""A data set has one task: by its labels, or as it names it; a task that cannot be used is named with what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.core.errors import ConfigError, DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels
from autoseg.dataset.task_section import BUILT_IN
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic
from autoseg.tasks.task import NEEDS, TASKS, Task, task_of

CLASSES = {"labels": {"background": 0, "a": 1, "b": 2}}
REGIONS = {"labels": {"background": 0, "ab": [1, 2], "b": [2]}, "regions_class_order": [1, 2]}


def labels_of(content: dict[str, Any]) -> Labels:
    channels = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 1}
    return Dataset.from_json({**channels, **content}, name="toy", folder=None).labels


def test_dataset_json_knows_the_names_of_the_built_in_tasks():
    assert (*TASKS, "regression") == BUILT_IN


def test_the_needs_of_a_task_are_the_members_of_the_protocol():
    assert set(NEEDS) == {name for name in vars(Task) if not name.startswith("_")}


@pytest.mark.parametrize("content", [CLASSES, {**CLASSES, "task": "semantic"}])
def test_classes_are_a_semantic_task(content):
    assert labels_of(content) == labels_of(CLASSES)
    assert isinstance(task_of(labels_of(content)), Semantic)


@pytest.mark.parametrize("content", [REGIONS, {**REGIONS, "task": "regions"}])
def test_regions_are_a_task_of_regions(content):
    assert labels_of(content) == labels_of(REGIONS)
    assert isinstance(task_of(labels_of(content)), Regions)


@pytest.mark.parametrize(
    ("content", "found", "expected"),
    [
        ({**CLASSES, "task": "objects"}, "'objects'", "['semantic', 'regions', 'instances', 'regression']"),
        ({**CLASSES, "task": ":Boundary"}, "':Boundary'", "package.module:attribute"),
        ({**CLASSES, "task": 3}, "3", "package.module:attribute"),
        ({**CLASSES, "task": None}, "None", "package.module:attribute"),
        ({**CLASSES, "task": "regions"}, "'regions'", '"semantic"'),
        ({**REGIONS, "task": "semantic"}, "'semantic'", '"regions"'),
    ],
)
def test_a_task_that_nobody_knows_or_that_does_not_fit_the_labels_is_a_fault(content, found, expected):
    with pytest.raises(DatasetError) as raised:
        labels_of(content)
    (fault,) = raised.value.faults
    assert fault.where.endswith("task") and found in fault.found and expected in fault.expected


def test_a_misspelt_task_gets_a_proposal():
    with pytest.raises(DatasetError, match="Did you mean 'semantic'"):
        labels_of({**CLASSES, "task": "semantics"})


def test_the_module_of_a_task_is_imported_only_where_outputs_matter():
    labels = labels_of({**CLASSES, "task": "no_such_module:Task"})
    assert labels.task == "no_such_module:Task"
    with pytest.raises(ConfigError, match=r"no_such_module:Task.*expected an importable"):
        task_of(labels)


def test_a_task_that_lacks_something_is_named_with_what_it_lacks(tmp_path: Path, monkeypatch):
    (tmp_path / "half_a_task.py").write_text(
        "class Half:\n    outputs = ('x',)\n    def __init__(self, labels):\n        self.labels = labels\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"half_a_task:Half.*without is_exclusive.*finish"):
        task_of(labels_of({**CLASSES, "task": "half_a_task:Half"}))


def test_a_task_that_cannot_be_made_from_labels_is_named():
    with pytest.raises(ConfigError, match=r"split_task:EVEN.*found an object of int"):
        task_of(labels_of({**CLASSES, "task": "split_task:EVEN"}))


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 2, 5, 4)], ids=["2d", "3d"])
def test_the_probabilities_of_classes_sum_to_one_and_those_of_regions_are_one_by_one(shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    classes = task_of(labels_of(CLASSES)).probabilities(logits)
    torch.testing.assert_close(classes.sum(1), torch.ones(shape[0], *shape[2:]))
    regions = task_of(labels_of(REGIONS)).probabilities(logits[:, :2])
    torch.testing.assert_close(regions, 1 / (1 + torch.exp(-logits[:, :2])))
