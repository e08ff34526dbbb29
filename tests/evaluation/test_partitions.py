"""Variation of information and adapted Rand error: numbers of scikit-image, laws, and additive tables."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import relabel_sequential

from autoseg.evaluation.contingency import Contingency
from autoseg.evaluation.instances import count_matches, match_instances
from autoseg.evaluation.partitions import PartitionCounts, count_partitions

SHAPES = pytest.mark.parametrize("shape", [(40, 45), (8, 20, 21)], ids=["2d", "3d"])


def divisions(shape: tuple[int, ...], seed: int, *, has_background: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return (prediction, reference): blocks with any numbers, of which some are moved, split, merged or lost."""
    rng = np.random.default_rng(seed)

    def blocks(edge: int) -> np.ndarray:
        places = np.indices(shape) // edge
        return np.ravel_multi_index(tuple(places), tuple(-(-size // edge) for size in shape))

    low = 0 if has_background else 1
    reference = rng.integers(low, 40, 10_000)[blocks(7)] * 3_000_017
    prediction = np.where(rng.random(10_000)[blocks(5)] < 0.4, rng.integers(low, 60, 10_000)[blocks(4)], reference)
    return prediction, reference


def counted(prediction: np.ndarray, reference: np.ndarray, decided: np.ndarray | None = None) -> PartitionCounts:
    return count_partitions(Contingency.of(prediction, reference, decided))


@SHAPES
@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_scikit_image(shape, seed):
    prediction, reference = divisions(shape, seed)
    counts = counted(prediction, reference)
    few, true = (relabel_sequential(values)[0] for values in (prediction, reference))
    assert (counts.split, counts.merge) == pytest.approx(tuple(variation_of_information(true, few)))
    alone = np.where(few == 0, few.max() + 1 + np.arange(few.size).reshape(shape), few)
    error, of_reference, of_prediction = adapted_rand_error(true, alone)  # its precision is over the true pairs
    assert (counts.rand_error, counts.recall, counts.precision) == pytest.approx((error, of_reference, of_prediction))


def test_without_predicted_background_the_rand_error_is_that_of_scikit_image_as_it_is():
    prediction, reference = divisions((40, 45), 5, has_background=False)
    few, true = (relabel_sequential(values)[0] for values in (prediction, reference))
    assert counted(prediction, reference).rand_error == pytest.approx(adapted_rand_error(true, few)[0])


def test_a_split_and_a_merge_of_halves_are_one_bit():
    halves, whole = np.repeat([4, 9], 8)[None], np.ones((1, 16), dtype=np.uint8)
    split, merged = counted(halves, whole), counted(whole, halves)
    assert (split.split, split.merge, split.precision) == (1, 0, 1) and split.recall == pytest.approx(56 / 120)
    assert (merged.split, merged.merge, merged.recall) == (0, 1, 1) and merged.precision == pytest.approx(56 / 120)


@SHAPES
def test_equal_divisions_with_other_numbers_have_no_error(shape):
    _, reference = divisions(shape, 0)
    counts = counted(np.where(reference > 0, 10**6 - reference // 3_000_017, 0), reference)
    assert (counts.split, counts.merge, counts.rand_error, counts.precision, counts.recall) == (0, 0, 0, 1, 1)


def test_an_object_that_is_not_found_is_an_error():
    reference = np.zeros((6, 6), dtype=int)
    reference[1:4, 1:4] = 1
    counts = counted(np.zeros_like(reference), reference)
    assert (counts.rand_error, counts.recall, counts.precision) == (1, 0, None)
    assert counts.split == 0 and counts.merge == pytest.approx(-0.25 * np.log2(0.25) - 0.75 * np.log2(0.75))


@SHAPES
def test_nothing_depends_on_undecided_voxels(shape):
    prediction, reference = divisions(shape, 1)
    rng = np.random.default_rng(0)
    decided = rng.random(shape) < 0.7
    scrambled = (np.where(decided, values, rng.integers(0, 500, shape)) for values in (prediction, reference))
    assert counted(*scrambled, decided) == counted(prediction, reference, decided)


@SHAPES
def test_tables_of_the_parts_of_a_case_add_up_to_that_of_the_whole(shape):
    prediction, reference = divisions(shape, 2)
    decided = np.random.default_rng(1).random(shape) < 0.8
    whole = Contingency.of(prediction, reference, decided)
    cuts = np.array_split(np.arange(shape[0]), 4)
    parts = [Contingency.of(prediction[cut], reference[cut], decided[cut]) for cut in cuts]
    total = sum(parts[1:], parts[0])
    for name in ("predicted", "reference", "voxels"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
    assert count_matches(total) == match_instances(prediction, reference, decided)


def test_counts_of_cases_add_up_as_if_their_objects_were_all_different():
    (one, true_one), (two, true_two) = divisions((20, 20), 3), divisions((20, 30), 4)
    together = counted(
        np.concatenate((one, np.where(two > 0, two + 10**9, 0)), 1),
        np.concatenate((true_one, np.where(true_two > 0, true_two + 10**9, 0)), 1),
    )
    total = counted(one, true_one) + counted(two, true_two)
    assert (total.rand_error, total.n_voxels) == (pytest.approx(together.rand_error), together.n_voxels)


def test_without_voxels_or_objects_nothing_is_said():
    nothing = np.zeros((3, 4), dtype=np.uint16)
    empty = counted(nothing, nothing, np.zeros(nothing.shape, dtype=bool))
    assert empty == PartitionCounts() and empty.split is None and empty.rand_error is None
    background = counted(nothing, nothing)
    assert (background.split, background.merge, background.n_voxels) == (0, 0, 12)
    assert background.rand_error is background.precision is background.recall is None
