from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.orientation import VoxelOrder
from autoseg.inference.box_sums import box_sums, count_in_boxes, patch_grid, slice_grid

SHAPE = (5, 7, 6)


def brute_force(values, grid):
    low, high = grid.corners()
    sums = [
        values[:, a:d, b:e, c:f].sum(axis=(1, 2, 3))
        for (a, b, c), (d, e, f) in zip(low.tolist(), high.tolist(), strict=True)
    ]
    return np.stack(sums, axis=1).reshape(len(values), *grid.shape)


@pytest.mark.parametrize(
    "grid",
    [*(slice_grid(SHAPE, axis) for axis in range(3)), patch_grid(SHAPE, (2, 4, 3)), patch_grid(SHAPE, (9, 1, 6))],
)
def test_sums_are_those_of_every_box(grid):
    values = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(box_sums(values, grid), brute_force(values, grid), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [slice_grid(SHAPE, 1), patch_grid(SHAPE, (3, 3, 2))])
def test_parts_of_an_image_add_up(grid):
    values = np.random.default_rng(1).normal(size=(1, *SHAPE))
    parts = [box_sums(values[:, first : first + 2, 1:6], grid, (first, 1, 0)) for first in range(0, 5, 2)]
    framed = np.zeros_like(values)
    framed[:, :, 1:6] = values[:, :, 1:6]
    np.testing.assert_allclose(sum(parts), brute_force(framed, grid))


def test_counts_are_those_of_true_voxels():
    mask = np.random.default_rng(2).random(SHAPE) < 0.4
    np.testing.assert_array_equal(count_in_boxes(mask, slice_grid(SHAPE, 0)).reshape(-1), mask.sum(axis=(1, 2)))


@pytest.mark.parametrize("flipped", [(False, False, False), (True, False, True)], ids=str)
def test_turned_boxes_are_those_of_the_turned_image(flipped):
    order = VoxelOrder((2, 0, 1), flipped)
    grid = patch_grid(SHAPE, (2, 4, 3))
    values = np.random.default_rng(3).normal(size=(1, *SHAPE))
    turned = box_sums(order.apply(values), grid.turned(order, order.permuted(SHAPE)))
    np.testing.assert_allclose(order.invert(turned), box_sums(values, grid))
    assert slice_grid(SHAPE, 1).turned(order, order.permuted(SHAPE)).axis == 2


def test_patches_cover_the_image_without_repeats():
    grid = patch_grid((1, 10, 3), (1, 4, 8))
    assert grid.edges == (1, 4, 3)
    assert grid.starts == ((0,), (0, 2, 4, 6), (0,))
    assert patch_grid((4, 4, 4), (1, 4, 4)).starts[0] == (0, 1, 2, 3)
