"""Coarser levels of a pyramid: means, majorities, ragged ends, and which axes are halved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.io.downsampling import downsampled, halving

FACTORS = st.tuples(*(st.integers(1, 2),) * 3)
SHAPE = st.tuples(*(st.integers(1, 5),) * 3)


def cells(array, factors):
    """The values of each cell of (z, y, x), by the index of the cell."""
    found = {}
    for index, value in np.ndenumerate(array):
        found.setdefault(tuple(i // f for i, f in zip(index, factors, strict=True)), []).append(value)
    return found


@given(shape=SHAPE, factors=FACTORS, seed=st.integers(0, 99))
def test_every_voxel_is_the_mean_the_majority_or_the_first_of_its_cell(shape, factors, seed):
    array = np.random.default_rng(seed).integers(0, 3, (1, *shape), dtype=np.uint8)
    found = {rule: downsampled(array, factors, rule) for rule in ("mean", "majority", "nearest")}
    numbers = downsampled(array.astype(np.float32), factors, "mean")
    for index, values in cells(array[0], factors).items():
        counts = Counter(int(value) for value in values)
        assert found["majority"][0][index] == max(counts, key=lambda value: (counts[value], value))
        assert found["nearest"][0][index] == values[0]
        assert numbers[0][index] == pytest.approx(np.mean(values))
        assert found["mean"][0][index] == np.rint(np.float32(np.mean(values)))
    assert all(result.dtype == array.dtype and result.shape == numbers.shape for result in found.values())


def test_channels_are_reduced_each_on_its_own():
    array = np.stack([np.zeros((2, 2, 2)), np.full((2, 2, 2), 8)]).astype(np.uint16)
    assert downsampled(array, (2, 2, 2), "mean").tolist() == [[[[0]]], [[[8]]]]


def test_labels_beyond_16_bits_stay_exact():
    array = np.full((1, 2, 2, 2), 2**40 + 1, dtype=np.uint64)
    assert downsampled(array, (2, 2, 2), "majority").item() == 2**40 + 1


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((9, 9, 9), (1, 1, 1), (2, 2, 2)),
        ((9, 9, 9), (40, 4, 4), (1, 2, 2)),
        ((9, 9, 9), (40, 32, 32), (2, 2, 2)),
        ((1, 9, 9), (1, 1, 1), (1, 2, 2)),
        ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_axes_are_halved_until_voxels_are_cubes(shape, spacing, expected):
    assert halving(shape, spacing) == expected
