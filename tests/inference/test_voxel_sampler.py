from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit

from autoseg.cases.case import CaseRecord
from autoseg.cases.label_codes import encode_target
from autoseg.core.errors import ModelError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inference.calibration_sample import load_sample
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.voxel_sampler import VoxelSampler, voxels_per_case

CLASSES = {"background": 0, "liver": 1, "tumour": 2, "ignore": 9}
REGIONS = {"background": 0, "organ": [1, 2], "tumour": 2, "ignore": 9}


def labels_of(names, **more):
    content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"} | more
    return Dataset.from_json(content, name="toy", folder=None).labels


def record_of(shape, *, low=(0, 0, 0), high=None, transpose=(0, 1, 2), case="a"):
    turned = tuple(shape[axis] for axis in transpose)
    high = high or turned
    return CaseRecord(
        case=case, geometry=Geometry(spacing=(1, 1, 1)), transpose=transpose, shape_before_crop=turned, crop_low=low,
        crop_high=high, spacing_before=(1, 1, 1), spacing=(1, 1, 1),
        shape=tuple(b - a for a, b in zip(low, high, strict=True)),
    )  # fmt: skip


def observed(sampler, probabilities, cuts=(None,)):
    first = 0
    for stop in cuts:
        planes = probabilities[:, first:stop]
        sampler(DecidedSlab(first, np.zeros(planes.shape[1:], np.uint8), planes))
        first = stop
    return sampler.sample()


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("shape", [(1, 8, 7), (4, 8, 7)], ids=["2d", "3d"])
def test_every_annotated_voxel_of_the_crop_is_taken_if_there_is_room(shape, transpose):
    labels = labels_of(CLASSES)
    drawn = np.random.default_rng(0).choice(np.array([0, 1, 2, 9], dtype=np.uint8), size=shape)
    turned = drawn.transpose(transpose)
    low, high = (0, 1, 0), tuple(size - (axis == 2) for axis, size in enumerate(turned.shape))
    cut = turned[:, low[1] :, : high[2]]
    probabilities = np.random.default_rng(1).dirichlet([1] * 3, size=cut.shape).astype(np.float32).transpose(3, 0, 1, 2)
    record = record_of(shape, low=low, high=high, transpose=transpose)
    sample = observed(VoxelSampler(encode_target(drawn, labels), record, labels, 10_000), probabilities)
    known = cut != 9
    np.testing.assert_allclose(sample.scores, np.log(probabilities[:, known]).T, atol=0.01)
    np.testing.assert_array_equal(sample.states, np.where(cut[known][:, None] == np.arange(3), 1, -1))
    np.testing.assert_array_equal(sample.weights, 1)


def test_regions_are_sampled_as_log_odds():
    labels = labels_of(REGIONS, regions_class_order=[1, 2])
    drawn = np.array([0, 1, 2, 9], dtype=np.uint8).reshape(1, 2, 2)
    probabilities = np.array([[0.1, 0.8, 0.7, 0.5], [0.2, 0.3, 0.9, 0.5]], dtype=np.float32).reshape(2, 1, 2, 2)
    sample = observed(VoxelSampler(encode_target(drawn, labels), record_of((1, 2, 2)), labels, 10), probabilities)
    np.testing.assert_array_equal(sample.states, [[-1, -1], [1, -1], [1, 1]])
    np.testing.assert_allclose(sample.scores, logit(probabilities.reshape(2, 4)[:, :3]).T, atol=0.01)


def test_classes_have_equal_shares_and_weights_restore_their_sizes():
    labels = labels_of(CLASSES)
    drawn = np.zeros((20, 60, 50), dtype=np.uint8)
    drawn[:4, :25] = 1
    drawn[5, :5, :4] = 2
    drawn[10:] = 9
    probabilities = np.full((3, 20, 60, 50), 1 / 3, dtype=np.float32)
    sampler = VoxelSampler(encode_target(drawn, labels), record_of(drawn.shape), labels, 1500)
    sample = observed(sampler, probabilities)
    taken, restored = (sample.states > 0).sum(axis=0), ((sample.states > 0) * sample.weights[:, None]).sum(axis=0)
    np.testing.assert_allclose(taken, [500, 500, 20], rtol=0.15)
    assert taken[2] == 20
    np.testing.assert_allclose(restored, [(drawn == value).sum() for value in (0, 1, 2)], rtol=0.15)


def test_the_choice_depends_on_the_case_and_not_on_slabs():
    labels = labels_of(CLASSES)
    rng = np.random.default_rng(2)
    drawn = rng.choice(np.array([0, 1, 2, 9], dtype=np.uint8), size=(6, 30, 30))
    probabilities = np.ascontiguousarray(
        rng.dirichlet([1] * 3, size=drawn.shape).astype(np.float32).transpose(3, 0, 1, 2)
    )

    def sample(case, cuts):
        target = encode_target(drawn, labels)
        return observed(VoxelSampler(target, record_of(drawn.shape, case=case), labels, 300), probabilities, cuts)

    whole, cut, other = sample("a", (6,)), sample("a", (1, 4, 6)), sample("b", (6,))
    np.testing.assert_array_equal(whole.scores, cut.scores)
    np.testing.assert_array_equal(whole.weights, cut.weights)
    assert not np.array_equal(whole.scores[:50], other.scores[:50])


def test_without_annotation_the_sample_is_empty_and_can_be_kept(tmp_path):
    labels = labels_of(CLASSES)
    drawn = np.full((2, 5, 5), 9, dtype=np.uint8)
    sampler = VoxelSampler(encode_target(drawn, labels), record_of(drawn.shape), labels, 100)
    sample = observed(sampler, np.full((3, 2, 5, 5), 1 / 3, dtype=np.float32))
    sample.save(tmp_path / "a.npz", labels)
    loaded = load_sample(tmp_path / "a.npz", labels)
    assert loaded.scores.shape == loaded.states.shape == (0, 3) and loaded.weights.shape == (0,)


def test_damaged_samples_and_those_of_other_classes_are_named(tmp_path):
    labels = labels_of(CLASSES)
    path = tmp_path / "a.npz"
    drawn = np.zeros((2, 5, 5), dtype=np.uint8)
    sampler = VoxelSampler(encode_target(drawn, labels), record_of(drawn.shape), labels, 100)
    observed(sampler, np.full((3, 2, 5, 5), 1 / 3, dtype=np.float32)).save(path, labels)
    with pytest.raises(ModelError, match=r"found the heads \['background', 'liver', 'tumour'\], not \['back"):
        load_sample(path, labels_of({"background": 0, "lesion": 1}))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"a\.npz: found no sample that can be read"):
        load_sample(path, labels)


def test_samples_of_a_fold_are_bounded():
    assert voxels_per_case(10, 3) == 10_000
    assert voxels_per_case(10, 200) == 1000
    assert voxels_per_case(0, 3) == 100_000 and voxels_per_case(10**9, 3) == 1
