"""Label files with numbers of objects: what a value stands for, and what dataset.json must say."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.core.errors import DatasetError
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.labels import Labels
from autoseg.dataset.objects import split_instances

CELLS = {
    "channel_names": {"0": "a"}, "task": "instances", "labels": {"background": 0, "cell": 1}, "unlabelled": 65535,
    "numTraining": 1, "file_ending": ".tif",
}  # fmt: skip
TWO = {**CELLS, "labels": {"background": 0, "cell": 1, "nucleus": 2}, "instances_per_class": 1000}

MANY = {"background": 0, **{f"class {value}": value for value in range(1, 30)}}


def labels_of(content: dict[str, object]) -> Labels:
    return Dataset.from_json(content, name="cells", folder=None).labels


def test_every_value_above_0_is_an_object_of_the_only_class():
    labels = labels_of(CELLS)
    assert labels.instances == InstanceNumbers(None) and not labels.is_dense and labels.n_heads == 2
    values = np.array([[0, 1, 2, 65534, 65535, 70000]])
    classes, objects = split_instances(values, labels)
    assert classes.tolist() == [[0, 1, 1, 1, 65535, 1]]
    assert objects.tolist() == [[0, 1, 2, 65534, 0, 70000]] and objects.dtype == np.uint32
    codes, sets = labels.encode(classes)
    assert codes.tolist() == [[0, 1, 1, 1, 2, 1]] and sets[2].all()


def test_the_class_of_an_object_is_its_value_divided():
    classes, objects = split_instances(np.array([0, 1001, 1999, 2000, 2017, 65535], dtype=np.uint16), labels_of(TWO))
    assert classes.tolist() == [0, 1, 1, 2, 2, 65535]
    assert objects.tolist() == [0, 1001, 1999, 2000, 2017, 0] and objects.dtype == np.uint16


@pytest.mark.parametrize("values", [[0, 0], [0, 3_000_002]])
def test_the_number_per_class_may_be_larger_than_the_type_of_the_file_holds(values):
    labels = labels_of({**TWO, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}, "instances_per_class": 1_000_000})
    classes, objects = split_instances(np.array(values, dtype=np.min_scalar_type(max(values))), labels)
    assert classes.tolist() == [0, values[1] // 1_000_000] and objects.tolist() == values


def test_background_may_have_a_value_of_its_own():
    labels = labels_of({**CELLS, "labels": {"background": 7, "cell": 1}, "unlabelled": 0})
    classes, objects = split_instances(np.array([0, 7, 6, 8]), labels)
    assert classes.tolist() == [0, 7, 1, 1] and objects.tolist() == [0, 0, 6, 8]


@pytest.mark.parametrize(
    ("content", "values", "named"),
    [(CELLS, [0, -3, 5], "-3"), (TWO, [0, 999, 3000], "999, 3000"), (CELLS, [2**31], "2147483648")],
)
def test_values_of_no_object_are_named(content, values, named):
    with pytest.raises(ValueError, match=named):
        split_instances(np.array(values, dtype=np.int64), labels_of(content))


def test_a_file_without_voxels_has_no_object():
    classes, objects = split_instances(np.zeros((0, 3), np.uint8), labels_of(CELLS))
    assert classes.shape == objects.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "where", "fix"),
    [
        ({"labels": {"background": 0, "cell": 1, "nucleus": 2}}, "labels", '"instances_per_class": 1000'),
        ({"labels": {"background": 0, "cell": 1, "ignore": 2}}, "labels.ignore", '"unlabelled": 65535'),
        ({"labels": {"background": 0, "cell": [1, 2]}, "regions_class_order": [1]}, "regions_class_order", "Remove"),
        ({"label_sets": {"5": ["background", "cell"]}}, "label_sets", "Remove"),
        ({"label_weights": {"9": {"label": "cell", "weight": 0.5}}}, "label_weights", "weights"),
        ({"cases": {"c": {"experts": {"a": "a/c.tif"}}}}, "cases.c.experts", "autoseg_fuse_experts"),
        ({"instances_per_class": 1}, "instances_per_class", "1000"),
        ({"instances_per_class": 10**8, "labels": MANY}, "instances_per_class", "smaller"),
        ({"instances_per_class": "many"}, "instances_per_class", "1000"),
        ({"task": "instance"}, "task", "Did you mean"),
        ({"task": "semantic", "instances_per_class": 10}, "instances_per_class", '"task": "instances"'),
        ({"task": "semantic", "affinities": [[0, -1, 0]]}, "affinities", '"task": "instances"'),
        ({"affinities": []}, "affinities", "[[-1, 0, 0]"),
        ({"affinities": [[0, -1]]}, "affinities", "[[-1, 0, 0]"),
        ({"affinities": [[0, -step, 0] for step in range(1, 8)]}, "affinities", "[[-1, 0, 0]"),
        ({"affinities": [[0, -1, 0], [0, -2, 1]]}, "affinities", "[0, -9, 0]"),
        ({"affinities": [[0, -1, 0], [0, 0, 0]]}, "affinities", "[0, -9, 0]"),
        ({"affinities": [[0, -1, 0], [0, 1, 0]]}, "affinities", "Remove one"),
        ({"affinities": [[0, -2, 0]]}, "affinities", "[0, -1, 0]"),
        ({"affinites": [[0, -2, 0]]}, "affinites", "affinities"),
        ({"instance_per_class": 10}, "instance_per_class", "instances_per_class"),
    ],
)
def test_what_does_not_fit_is_a_fault(change, where, fix):
    with pytest.raises(DatasetError) as raised:
        labels_of({**CELLS, **change})
    fault = next(fault for fault in raised.value.faults if fault.where.endswith(where))
    assert fix.casefold() in fault.fix.casefold()


def test_offsets_of_affinities_are_a_choice_of_what_is_learnt():
    labels = labels_of({**TWO, "affinities": [[0, -1, 0], [0, 0, -1], [0, 9, 0]]})
    assert labels.instances == InstanceNumbers(1000, ((0, -1, 0), (0, 0, -1), (0, 9, 0)))
