"""Dense maps follow the argmax rule of batchgenerators; scribbles survive; annotated slabs do not swell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from scipy import ndimage

from autoseg.preprocessing import resample_codes
from autoseg.preprocessing.axes import nearest_indices

UNKNOWN = 4
SHAPES = [
    ((31,), (20,)),
    ((20, 13), (9, 40)),
    ((12, 13, 14), (24, 26, 28)),
    ((12, 13, 14), (6, 27, 14)),
    ((1, 30, 30), (1, 45, 17)),
    ((6, 2, 1), (7, 9, 4)),
]


def _blobs(shape, n_codes, seed, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(n_codes)]
    return np.argmax(fields, axis=0).astype(dtype)


def _curves(shape, seed, n_curves=6):
    """Bezier curves one voxel wide, of random classes, that cross and touch, in unknown surroundings."""
    rng = np.random.default_rng(seed)
    codes = np.full(shape, UNKNOWN, np.uint8)
    t = np.linspace(0, 1, 300)[:, None]
    for _ in range(n_curves):
        a, b, c = rng.random((3, len(shape))) * shape
        points = ((1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c).astype(int)
        codes[tuple(np.minimum(points, np.array(shape) - 1).T)] = rng.integers(UNKNOWN)
    return codes


def _lost(codes, result, *, reach):
    """Annotated source voxels without an output voxel of their code within ``reach`` of their mapped position."""
    voxels = np.argwhere(codes != UNKNOWN)
    size = np.array(result.shape)
    mapped = np.clip((voxels + 0.5) * size / codes.shape - 0.5, 0, size - 1)
    found = np.zeros(len(voxels), bool)
    for step in itertools.product((-1, 0, 1), repeat=codes.ndim):
        index = np.clip(np.floor(mapped + 0.5).astype(int) + step, 0, size - 1)
        is_near = (np.abs(index - mapped) <= reach + 1e-9).all(axis=1)
        found |= is_near & (result[tuple(index.T)] == codes[tuple(voxels.T)])
    return int((~found).sum())


@pytest.mark.parametrize(("before", "after"), SHAPES, ids=str)
@pytest.mark.parametrize("n_codes", [2, 5])
@pytest.mark.parametrize("kind", ["blobs", "noise"])
def test_dense_maps_equal_batchgenerators(before, after, n_codes, kind):
    rng = np.random.default_rng(0)
    codes = _blobs(before, n_codes, 0) if kind == "blobs" else rng.integers(0, n_codes, before).astype(np.uint8)
    expected = resize_segmentation(codes, after, order=1)
    np.testing.assert_array_equal(resample_codes(codes, after, unknown=None), expected)
    np.testing.assert_array_equal(resample_codes(codes, after, unknown=99), expected)


def test_a_large_dense_map_agrees_in_9999_of_10000_voxels():
    codes = _blobs((40, 44, 48), 12, 1, np.uint16)
    expected = resize_segmentation(codes, (57, 31, 71), order=1)
    result = resample_codes(codes, (57, 31, 71), unknown=None)
    assert result.dtype == np.uint16
    assert (result != expected).mean() <= 1e-4


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("after", [(12, 20, 9), (5, 7, 33)], ids=str)
def test_dense_maps_with_a_separate_axis_equal_nearest_slices_resized_in_plane(axis, after):
    codes = _blobs((9, 11, 13), 4, 0)
    in_plane = tuple(length for index, length in enumerate(after) if index != axis)
    slices = np.stack([resize_segmentation(plane, in_plane, order=1) for plane in np.moveaxis(codes, axis, 0)])
    expected = np.moveaxis(slices[nearest_indices(codes.shape[axis], after[axis])], 0, axis)
    np.testing.assert_array_equal(resample_codes(codes, after, unknown=None, separate_axis=axis), expected)


@pytest.mark.parametrize("separate_axis", [None, 0])
@pytest.mark.parametrize("factors", [(0.5,), (0.62, 1), (0.5, 2), (0.75, 1.3), (1.5,), (2,)], ids=str)
@pytest.mark.parametrize("shape", [(37, 41), (17, 26, 22)], ids=["2d", "3d"])
def test_scribbles_survive_everywhere_in_any_combination_of_factors(shape, factors, separate_axis):
    for seed, assigned in enumerate(itertools.product(factors, repeat=len(shape))):
        after = tuple(round(length * factor) for length, factor in zip(shape, assigned, strict=True))
        codes = _curves(shape, seed)
        result = resample_codes(codes, after, unknown=UNKNOWN, separate_axis=separate_axis)
        assert _lost(codes, result, reach=1.5) == 0, (seed, after)
        assert set(np.unique(result)) <= set(np.unique(codes))


@pytest.mark.parametrize("factor", [0.5, 0.6, 0.8, 1.4, 2])
@pytest.mark.parametrize("shape", [(41, 37), (19, 25, 23)], ids=["2d", "3d"])
def test_a_single_scribble_survives_less_than_one_output_voxel_away(shape, factor):
    after = tuple(round(length * factor) for length in shape)
    for seed in range(6):
        codes = _curves(shape, seed, n_curves=1)
        assert _lost(codes, resample_codes(codes, after, unknown=UNKNOWN), reach=1) == 0


@pytest.mark.parametrize("separate_axis", [None, 0])
def test_single_annotated_slices_stay_whole_when_slices_are_halved(separate_axis):
    codes = np.full((20, 8, 9), UNKNOWN, np.uint8)
    codes[[1, 6, 11, 16]] = 2
    result = resample_codes(codes, (10, 16, 18), unknown=UNKNOWN, separate_axis=separate_axis)
    assert [index for index in range(10) if (result[index] == 2).all()] == [0, 3, 5, 8]
    assert (result[[1, 2, 4, 6, 7, 9]] == UNKNOWN).all()


@pytest.mark.parametrize("n_after", [10, 13, 20, 31, 40])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_an_annotated_slab_grows_by_half_a_voxel_at_most(n_dims, n_after):
    codes = np.full((20,) * n_dims, UNKNOWN, np.uint8)
    codes[5:11] = 1
    result = resample_codes(codes, (n_after,) * n_dims, unknown=UNKNOWN)
    centres = (np.arange(n_after) + 0.5) * 20 / n_after  # in source voxel edges
    half = max(1, 20 / n_after) / 2
    annotated = (result == 1).reshape(n_after, -1)
    assert (annotated.all(axis=1) | ~annotated.any(axis=1)).all()
    assert centres[annotated[:, 0]].min() >= 5 - half
    assert centres[annotated[:, 0]].max() <= 11 + half
    assert annotated[(centres > 5) & (centres < 11)].all()


def test_a_code_that_loses_the_vote_takes_a_voxel_that_the_winner_can_spare():
    codes = np.full((2, 12), UNKNOWN, np.uint8)
    codes[0, :9], codes[1, :9] = 0, 1  # two lines that share each output voxel
    result = resample_codes(codes, (1, 12), unknown=UNKNOWN)
    assert set(result[0]) == {0, 1, UNKNOWN}
    assert _lost(codes, result, reach=1.5) == 0


def test_the_codes_of_unknown_voxels_do_not_matter():
    codes = _curves((30, 31), 0)
    other = np.where(codes == UNKNOWN, 77, codes)
    first = resample_codes(codes, (17, 40), unknown=UNKNOWN)
    second = resample_codes(other, (17, 40), unknown=77)
    np.testing.assert_array_equal(np.where(first == UNKNOWN, 77, first), second)


def test_partially_annotated_noise_ends_and_keeps_nearly_all():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, UNKNOWN, (24, 24, 24)).astype(np.uint8)
    codes[12:] = UNKNOWN
    result = resample_codes(codes, (12, 12, 12), unknown=UNKNOWN)
    assert _lost(codes, result, reach=1.5) < 0.001 * codes.size
    assert (result[7:] == UNKNOWN).all()


def test_nothing_but_unknown_stays_unknown_and_empty_gives_zeros():
    codes = np.full((5, 6), UNKNOWN, np.uint8)
    assert (resample_codes(codes, (9, 3), unknown=UNKNOWN) == UNKNOWN).all()
    np.testing.assert_array_equal(resample_codes(codes[:0], (2, 3), unknown=UNKNOWN), np.zeros((2, 3)))


def test_the_same_shape_gives_a_copy_and_the_map_is_never_changed():
    codes = _curves((15, 16), 0)
    before = codes.copy()
    resample_codes(codes, (15, 16), unknown=UNKNOWN)[...] = 0
    resample_codes(codes, (8, 16), unknown=UNKNOWN)
    resample_codes(codes.T, (8, 8), unknown=UNKNOWN)
    np.testing.assert_array_equal(codes, before)


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"new shape \(4,\) .*spatial shape \(4, 4\)"):
        resample_codes(np.zeros((4, 4), np.uint8), (4,), unknown=None)
