"""A class that one data set divides and another one does not is found by what touches what."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.interop.doubtful_classes import count_contacts, doubtful_classes
from autoseg.interop.merging import plan_merger
from autoseg.io.images import write_labels

SHAPES = pytest.mark.parametrize("shape", [(1, 24, 32), (8, 24, 32)], ids=["2d", "3d"])


def organs(shape, *, tumour, kidney):
    """Return a liver with a tumour of that value in it, and a kidney beside it that touches it."""
    z, y, x = (np.arange(edge) - edge // 2 for edge in shape)
    flat = (z[:, None, None] ** 2) * (shape[0] > 1)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[flat + y[:, None] ** 2 + (x + 6) ** 2 < 64] = 1
    labels[flat + (y[:, None] - 2) ** 2 + (x + 6) ** 2 < 9] = tumour
    labels[(labels == 0) & (flat + y[:, None] ** 2 + (x - 6) ** 2 < 25)] = kidney
    return labels


def write(folder, labels, names, **keys):
    geometry = Geometry(spacing=(2.0, 1.0, 1.0), ndim=3)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in "ab":
        write_labels(folder / "imagesTr" / f"{case}_0000.nii.gz", labels + np.uint8(1), geometry)
        write_labels(folder / "labelsTr" / f"{case}.nii.gz", labels, geometry)
    content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 2, "file_ending": ".nii.gz", **keys}
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@SHAPES
def test_contacts_are_counted_in_both_orders(shape):
    labels = np.zeros(shape, dtype=np.uint8)
    labels[0, 2:4, 2:4], labels[0, 2:4, 4] = 1, 2
    labels[0, 10, 10] = 9  # not a class
    counts = count_contacts(labels, {0: "background", 1: "a", 2: "b"})
    below = shape[0] > 1
    assert counts["a", "b"] == counts["b", "a"] == 2
    assert counts["a", "background"] == counts["background", "a"] == 6 + 4 * below
    assert counts["b", "background"] == 4 + 2 * below
    assert count_contacts(labels[:0], {0: "background"}).total() == 0


@SHAPES
def test_a_liver_with_tumours_and_one_without_are_told_apart_with_what_to_write(tmp_path, shape):
    both = {"background": 0, "liver": 1, "tumour": 2, "kidney": 3}
    tumours = write(tmp_path / "Tumours", organs(shape, tumour=2, kidney=3), both)
    livers = write(tmp_path / "Livers", organs(shape, tumour=1, kidney=0), {"background": 0, "liver": 1})
    (found,) = doubtful_classes(plan_merger([livers, tumours], "all"))
    assert (found.name, found.dataset.name, found.other.name) == ("liver", "Livers", "Tumours")
    assert list(found.parts) == ["tumour"] and found.parts["tumour"] == 1  # the kidney touches the liver here and there
    assert found.change() == {
        "labels": {"background": 0, "liver": 2, "tumour": 3}, "label_sets": {"1": ["liver", "tumour"]},
    }  # fmt: skip
    text = str(found)
    assert str(tmp_path / "Livers" / "dataset.json") in text
    lines = [line for line in text.splitlines() if line.startswith('  "')]
    assert json.loads("{" + "".join(lines) + "}") == found.change()


def test_the_change_keeps_the_other_values_and_what_is_ignored(tmp_path):
    shape = (4, 24, 32)
    tumours = write(tmp_path / "Tumours", organs(shape, tumour=2, kidney=0), {"background": 0, "liver": 1, "tumour": 2})
    labels = organs(shape, tumour=1, kidney=2)
    labels[0, 0] = 4
    labels[0, 1] = 3
    names = {"background": 0, "liver": 1, "kidney": 2, "ignore": 4}
    livers = write(tmp_path / "Livers", labels, names, label_sets={"3": ["liver", "kidney"]})
    (found,) = doubtful_classes(plan_merger([tumours, livers], "all"))
    classes = ["background", "kidney", "liver", "tumour"]
    assert found.change()["labels"] == {"background": 0, "kidney": 2, "liver": 5, "tumour": 6}
    sets = {value: sorted(names) for value, names in found.change()["label_sets"].items()}
    assert sets == {"1": ["liver", "tumour"], "3": ["kidney", "liver"], "4": sorted(classes)}


def test_classes_that_only_lie_beside_each_other_and_equal_data_sets_raise_no_doubt(tmp_path):
    shape = (4, 24, 32)
    both = write(tmp_path / "Both", organs(shape, tumour=1, kidney=2), {"background": 0, "liver": 1, "kidney": 2})
    livers = write(tmp_path / "Livers", organs(shape, tumour=1, kidney=0), {"background": 0, "liver": 1})
    same = write(tmp_path / "Same", organs(shape, tumour=1, kidney=2), {"background": 0, "liver": 1, "kidney": 2})
    assert doubtful_classes(plan_merger([both, livers], "all")) == ()
    assert doubtful_classes(plan_merger([both, same], "all")) == ()
