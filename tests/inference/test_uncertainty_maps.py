from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from autoseg.dataset.dataset import Dataset
from autoseg.inference.uncertainty_maps import UncertaintySums, uncertainty_maps

CLASSES = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "organ": [1, 2], "tumour": 2}
SHAPES = pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5)], ids=["2d", "3d"])


def labels_of(names, **more):
    content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"} | more
    return Dataset.from_json(content, name="toy", folder=None).labels


def members_of_classes(shape, n_members=3, n_heads=4):
    drawn = np.random.default_rng(0).dirichlet([0.2] * n_heads, size=(n_members, *shape)).astype(np.float32)
    return [np.ascontiguousarray(np.moveaxis(member, -1, 0)) for member in drawn]


@SHAPES
def test_maps_of_classes_follow_from_their_formulas(shape):
    members = members_of_classes(shape)
    total, expected, mutual = uncertainty_maps(members, is_exclusive=True)
    own = [scipy_entropy(member, base=4, axis=0) for member in members]
    np.testing.assert_allclose(total, scipy_entropy(np.mean(members, axis=0), base=4, axis=0), atol=1e-5)
    np.testing.assert_allclose(expected, np.mean(own, axis=0), atol=1e-5)
    divergence = np.mean(
        [scipy_entropy(member, np.mean(members, axis=0), base=4, axis=0) for member in members], axis=0
    )
    np.testing.assert_allclose(mutual, divergence, atol=1e-5)  # mean divergence from the mean: the same, independently
    assert total.dtype == np.float32 and mutual.max() > 0.1


@SHAPES
def test_maps_of_regions_are_means_over_regions_in_bits(shape):
    members = list(np.random.default_rng(1).random((3, 2, *shape), dtype=np.float32))
    total, expected, mutual = uncertainty_maps(members, is_exclusive=False)

    def bits(p):
        return np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p), axis=0)

    np.testing.assert_allclose(total, bits(np.mean(members, axis=0)), atol=1e-5)
    np.testing.assert_allclose(expected, np.mean([bits(member) for member in members], axis=0), atol=1e-5)
    np.testing.assert_allclose(mutual, total - expected, atol=1e-6)


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_maps_lie_in_0_to_1_and_members_that_agree_have_no_mutual_information(is_exclusive):
    certain = np.zeros((3, 1, 2, 2), dtype=np.float32)
    certain[0] = 1
    other = certain[[1, 0, 2]]
    assert not uncertainty_maps([certain] * 3, is_exclusive=is_exclusive).any()
    total, expected, mutual = uncertainty_maps([certain, other], is_exclusive=is_exclusive)
    assert not expected.any()
    np.testing.assert_allclose(mutual, np.log(2) / np.log(3) if is_exclusive else 2 / 3, atol=1e-6)
    np.testing.assert_array_equal(total, mutual)
    same = uncertainty_maps([members_of_classes((2, 30, 30), 1)[0]] * 7, is_exclusive=is_exclusive)
    assert same.min() >= 0 and same.max() <= 1 and same[2].max() < 1e-5


def test_one_member_has_exactly_no_mutual_information_and_nothing_is_changed():
    (member,) = members_of_classes((2, 5, 4), 1)
    before = member.copy()
    total, expected, mutual = uncertainty_maps([member], is_exclusive=True)
    np.testing.assert_array_equal(total, expected)
    assert not mutual.any()
    many = members_of_classes((2, 5, 4))
    uncertainty_maps(many, is_exclusive=True)
    np.testing.assert_array_equal(member, before)
    np.testing.assert_array_equal(many[0], members_of_classes((2, 5, 4))[0])


@pytest.mark.parametrize("names", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_means_over_predicted_voxels(names):
    order = {} if names is CLASSES else {"regions_class_order": [1, 2]}
    labels = labels_of(names, **order)
    rng = np.random.default_rng(2)
    values = rng.choice(np.array([0, 1, 2], dtype=np.uint8), size=(4, 5, 6), p=[0.5, 0.3, 0.2])
    maps = rng.random((3, 4, 5, 6), dtype=np.float32)
    sums = UncertaintySums(labels)
    for planes in (slice(0, 3), slice(3, 4)):
        sums.add(values[planes], maps[:, planes])
    for head in labels.heads:
        inside = np.isin(values, head.values)
        mean = sums.of_head(head)
        assert mean.n_voxels == inside.sum()
        assert mean.entropy == pytest.approx(maps[0][inside].mean(), rel=1e-5)
        assert mean.mutual_information == pytest.approx(maps[2][inside].mean(), rel=1e-5)
    assert sums.of_foreground().expected_entropy == pytest.approx(maps[1][values > 0].mean(), rel=1e-5)
    assert sums.of_image(240).entropy == pytest.approx(maps[0].sum() / 240, rel=1e-5)


def test_empty_predictions_have_no_mean():
    sums = UncertaintySums(labels_of(CLASSES))
    sums.add(np.zeros((1, 3, 3), dtype=np.uint8), np.full((3, 1, 3, 3), 0.5, dtype=np.float32))
    empty = sums.of_foreground()
    assert (empty.n_voxels, empty.entropy, empty.mutual_information) == (0, None, None)
    assert sums.of_image(9).entropy == 0.5
