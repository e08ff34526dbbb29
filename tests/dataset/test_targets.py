"""dataset.json of a regression names its targets, and none of the keys that speak of classes."""

from __future__ import annotations

from typing import Any

import pytest

from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels, class_differences

SOUND = {"channel_names": {"0": "em"}, "file_ending": ".tif", "task": "regression", "targets": ["depth", "height"]}
CLASSES = {"channel_names": {"0": "em"}, "file_ending": ".tif", "labels": {"background": 0, "cell": 1}}


def labels_of(content: dict[str, Any]) -> Labels:
    return Dataset.from_json(content, name="toy", folder=None).labels


def test_targets_are_the_heads_in_order():
    labels = labels_of(SOUND)
    assert labels.targets == ("depth", "height") == tuple(head.name for head in labels.heads)
    assert labels.foreground_heads == (0, 1) and not labels.is_dense and labels.no_number is None


@pytest.mark.parametrize(("value", "expected"), [(-1, -1), (0, 0), ("nan", None)])
def test_a_number_may_be_declared_unknown(value, expected):
    assert labels_of({**SOUND, "unlabelled": value}).no_number == expected


def test_other_targets_are_another_network():
    assert class_differences(labels_of(SOUND), labels_of({**SOUND, "targets": ["height", "depth"]}))


@pytest.mark.parametrize(
    ("content", "where", "expected"),
    [
        ({**SOUND, "labels": {"background": 0, "cell": 1}}, "labels", "no classes"),
        ({**SOUND, "annotation_protocol": {"instances_touched": True}}, "annotation_protocol", "no classes"),
        ({**SOUND, "label_weights": {"3": {"label": "depth", "weight": 0.5}}}, "label_weights", "no classes"),
        ({**SOUND, "expert_fusion": {"method": "majority"}}, "expert_fusion", "no classes"),
        ({**SOUND, "cases": {"a": {"absent": ["cell"]}}}, "cases.a", "no classes"),
        ({**SOUND, "targets": ["depth", "depth"]}, "targets", "a name of its own"),
        ({**SOUND, "targets": []}, "targets", "a list with a name"),
        ({key: value for key, value in SOUND.items() if key != "targets"}, "targets", "a list with a name"),
        ({**CLASSES, "targets": ["depth"]}, "targets", '"task": "regression"'),
        ({**CLASSES, "task": "regression"}, "labels", "no classes"),
    ],
)
def test_what_does_not_belong_together_is_a_fault(content, where, expected):
    with pytest.raises(DatasetError) as raised:
        labels_of(content)
    faults = {fault.where.rpartition(": ")[2]: fault for fault in raised.value.faults}
    assert where in faults and expected in faults[where].expected and faults[where].fix
