from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.cases.case import CaseRecord
from autoseg.cases.label_codes import encode_target
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inference.box_sums import slice_grid
from autoseg.inference.box_uncertainty import SHADES, entropies, measure, open_voxels

CLASSES = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "organ": [1, 2], "tumour": 2}


def labels_of(names, *, ignore=3, **more):
    content = {
        "channel_names": {"0": "CT"}, "labels": names | {"ignore": ignore}, "numTraining": 1, "file_ending": ".nii.gz",
    } | more  # fmt: skip
    return Dataset.from_json(content, name="toy", folder=None).labels


def record_of(shape, *, low=(0, 0, 0), high=None, transpose=(0, 1, 2)):
    turned = tuple(shape[axis] for axis in transpose)
    high = high or turned
    return CaseRecord(
        case="a", geometry=Geometry(spacing=(1, 1, 1)), transpose=transpose, shape_before_crop=turned, crop_low=low,
        crop_high=high, spacing_before=(1, 1, 1), spacing=(1, 1, 1),
        shape=tuple(b - a for a, b in zip(low, high, strict=True)),
    )  # fmt: skip


def column(*values):
    return torch.tensor(values, dtype=torch.float32).log().reshape(-1, 1, 1, 1)


def test_entropy_of_a_voxel_by_hand():
    entropy, weighted, predicted = entropies(column(0.5, 0.25, 0.25), None, labels_of(CLASSES))
    expected = (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    assert entropy.item() == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(weighted.ravel(), np.array([0.5, 0.25, 0.25]) * expected, rtol=1e-5)
    assert predicted.ravel().tolist() == [1, 0, 0]
    uniform, _, _ = entropies(column(1, 1, 1), None, labels_of(CLASSES))
    assert uniform.item() == pytest.approx(1)


def test_entropy_lies_within_the_label_set():
    probabilities = column(0.5, 0.25, 0.25)
    between_two = np.array([False, True, True]).reshape(3, 1, 1, 1)
    entropy, weighted, predicted = entropies(probabilities, between_two, labels_of(CLASSES))
    assert entropy.item() == pytest.approx(math.log(2) / math.log(3), abs=1e-6)
    np.testing.assert_allclose(weighted.ravel(), np.array([0, 0.5, 0.5]) * entropy.item(), rtol=1e-5)
    assert predicted.ravel().tolist() == [0, 1, 0]
    for result in entropies(probabilities, np.zeros((3, 1, 1, 1), dtype=bool), labels_of(CLASSES)):
        assert not result.any()


def test_entropy_of_regions_is_the_mean_over_undecided_ones():
    labels = labels_of(REGIONS, regions_class_order=[1, 2])
    logits = torch.tensor([0.0, 0.0]).reshape(2, 1, 1, 1)
    assert entropies(logits, None, labels)[0].item() == pytest.approx(1)
    second = np.array([False, True]).reshape(2, 1, 1, 1)
    entropy, weighted, _ = entropies(logits, second, labels)
    assert entropy.item() == pytest.approx(0.5)
    np.testing.assert_allclose(weighted.ravel(), [0, 0.5])


@pytest.mark.parametrize("names", [CLASSES, REGIONS], ids=["softmax", "regions"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_an_annotated_voxel_is_no_reason_to_annotate(names, transpose):
    order = {} if names is CLASSES else {"regions_class_order": [1, 2]}
    labels = labels_of(names, **order)
    shape = (4, 5, 6)
    drawn = np.full(shape, 3, dtype=np.uint8)
    drawn[1] = 1
    drawn[2, :2] = 0
    target = encode_target(drawn, labels, "a")
    record = record_of(shape, transpose=transpose)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(labels.n_heads, *record.shape)).astype(np.float32)
    measured, maps = measure(logits, record, labels, target, slice_grid(shape, 0))
    assert measured.open_voxels.ravel().tolist() == [30, 0, 18, 30]
    assert measured.entropy.ravel()[1] == 0
    assert not maps.entropy[drawn != 3].any()
    assert maps.entropy[0].all()
    assert maps.is_open.sum() == 78

    scrambled = logits.transpose(0, *(1 + transpose.index(axis) for axis in range(3))).copy()
    scrambled[:, drawn != 3] = 7
    scrambled = scrambled.transpose(0, *(1 + axis for axis in transpose))
    again, _ = measure(np.ascontiguousarray(scrambled), record, labels, target, slice_grid(shape, 0))
    for name in ("entropy", "entropy_of", "predicted"):
        np.testing.assert_allclose(getattr(again, name), getattr(measured, name), rtol=1e-5)


def test_the_sums_are_those_of_the_maps():
    labels, shape = labels_of(CLASSES), (4, 5, 6)
    record = record_of(shape, low=(1, 0, 2), high=(4, 5, 6))
    logits = np.random.default_rng(1).normal(size=(3, *record.shape)).astype(np.float32)
    measured, maps = measure(logits, record, labels, None, slice_grid(shape, 2))
    per_slice = maps.entropy.astype(float).sum(axis=(0, 1)) / SHADES
    np.testing.assert_allclose(measured.entropy.ravel(), per_slice, atol=15 / SHADES)
    assert measured.open_voxels.ravel().tolist() == [20] * 6
    assert (measured.entropy.ravel()[:2] == 0).all()
    assert (measured.entropy.ravel()[2:] > 0).all()
    np.testing.assert_array_equal(
        measured.predicted.reshape(2, 6), [(maps.labels == value).sum(axis=(0, 1)) for value in (1, 2)]
    )


def test_partly_known_voxels_are_open():
    labels = labels_of(CLASSES, cases={"a": {"absent": ["tumour"]}})
    target = encode_target(np.array([[[0, 1, 3]]]), labels, "a")
    assert open_voxels(target, labels, (1, 1, 3)).ravel().tolist() == [False, False, True]
    assert open_voxels(None, labels, (1, 1, 3)).all()
