"""Targets are standardised by mean and deviation over the known voxels of all cases."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.inspection.target_sums import TargetSums, target_properties


def cases(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = [(rng.normal(size=(2, 3, 4, n)) + 1e4 * n).astype(np.float32) for n in (2, 5, 9)]
    for case in numbers:
        case[rng.random(case.shape) < 0.4] = np.nan
    return [*numbers, np.full((2, 3, 3, 3), np.nan, dtype=np.float32)]


def test_sums_of_cases_give_the_statistics_of_all_their_known_voxels():
    numbers = cases()
    found = target_properties(["a", "b"], [tuple(map(TargetSums.of, case)) for case in numbers])
    for index, name in enumerate(("a", "b")):
        known = np.concatenate([case[index][np.isfinite(case[index])] for case in numbers]).astype(np.float64)
        item = found[name]
        assert (item.n_voxels, item.min, item.max) == (known.size, known.min(), known.max())
        assert item.mean == pytest.approx(known.mean(), rel=1e-12) and item.std == pytest.approx(known.std(), rel=1e-9)


def test_nothing_depends_on_cases_or_voxels_of_which_nothing_is_known():
    numbers = cases()
    with_unknown = target_properties(["a", "b"], [(), *(tuple(map(TargetSums.of, case)) for case in numbers)])
    assert with_unknown == target_properties(["a", "b"], [tuple(map(TargetSums.of, case)) for case in numbers[:-1]])


def test_numbers_that_are_all_the_same_are_not_divided_by_0():
    sums = TargetSums.of(np.full((2, 2, 2), 7, dtype=np.float32))
    item = target_properties(["a"], [(sums,)])["a"]
    assert (item.mean, item.std, item.scale) == (7, 0, 1)


def test_a_target_that_is_known_nowhere_is_a_fault():
    numbers = cases()[0]
    numbers[1] = np.nan
    with pytest.raises(DatasetError, match=r"target 'b'.*no known voxel in any case"):
        target_properties(["a", "b"], [tuple(map(TargetSums.of, numbers))])


def test_classes_have_no_targets():
    assert target_properties((), [(), ()]) == {}
