"""Numbers are moved from known voxels alone, by the same map as images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.augmentation.move_numbers import move_numbers
from autoseg.augmentation.warp import Warp, identity, move_image

SHAPES = pytest.mark.parametrize("shape", [(12, 10), (6, 12, 10)], ids=["2d", "3d"])


def turned(n_axes: int, mirrors: bool = False) -> Warp:
    matrix = np.eye(n_axes)
    matrix[-2:, -2:] = 0.8 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    return Warp(tuple(map(tuple, matrix.tolist())), (mirrors,) * n_axes)


def centre_of(shape):
    return tuple((edge - 1) / 2 for edge in shape)


@SHAPES
@pytest.mark.parametrize("mirrors", [False, True])
def test_what_is_known_everywhere_moves_as_an_image_and_is_unknown_outside(shape, mirrors):
    numbers = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    patch = tuple(edge + 6 for edge in shape)
    warp, centre = turned(len(shape), mirrors), centre_of(shape)
    moved, image = move_numbers(numbers, warp, centre, patch), move_image(numbers, warp, centre, patch)
    inside = move_image(torch.ones(1, *shape), warp, centre, patch)[0] > 1 - 1e-6
    assert inside.any() and torch.allclose(moved[:, inside], image[:, inside], atol=1e-5)
    outside = move_image(torch.ones(1, *shape), warp, centre, patch)[0] < 0.5
    assert outside.any() and moved[:, outside].isnan().all()


@SHAPES
def test_a_moved_number_lies_in_the_range_of_known_ones(shape):
    generator = torch.Generator().manual_seed(1)
    numbers = torch.rand(1, *shape, generator=generator) + 10
    numbers[torch.rand(numbers.shape, generator=generator) < 0.3] = torch.nan
    moved = move_numbers(numbers, turned(len(shape)), centre_of(shape), shape)
    known = moved[~moved.isnan()]
    assert known.numel() and known.min() >= 10 - 1e-4 and known.max() <= 11 + 1e-4


@SHAPES
def test_without_a_transform_numbers_are_copied_and_flipped(shape):
    numbers = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    numbers[0].view(-1)[::3] = torch.nan
    moved = move_numbers(numbers, identity(len(shape)), centre_of(shape), shape)
    assert torch.equal(moved.nan_to_num(99), numbers.nan_to_num(99))
    flipped = Warp(identity(len(shape)).matrix, (True, *[False] * (len(shape) - 1)))
    moved = move_numbers(numbers, flipped, centre_of(shape), shape)
    assert torch.equal(moved.nan_to_num(99), numbers.flip(1).nan_to_num(99))


@SHAPES
def test_a_patch_beyond_the_image_is_unknown_there(shape):
    numbers = torch.ones(1, *shape)
    larger = tuple(edge + 2 for edge in shape)
    moved = move_numbers(numbers, identity(len(shape)), centre_of(shape), larger)
    assert int(moved.isnan().sum()) == np.prod(larger) - np.prod(shape)
