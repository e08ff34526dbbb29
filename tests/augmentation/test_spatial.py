"""Drawn transforms: their distribution, hand-computed rotations, the box they read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.augmentation.recipes import Recipe, no_augmentation
from autoseg.augmentation.spatial import (
    SpatialDraw,
    draw_spatial,
    identity_draw,
    keep_inside,
    move_image,
    rotation_matrix,
    source_box,
)

ALWAYS = Recipe(rotation_probability=1, scaling_probability=1, rotation_degrees=180)
PATCHES = pytest.mark.parametrize("patch", [(7, 6), (5, 7, 6)], ids=["2d", "3d"])


def turned(angles: list[float], mirrors: tuple[bool, ...] = (False, False, False)) -> SpatialDraw:
    matrix = rotation_matrix(angles)
    return SpatialDraw(tuple(map(tuple, matrix.tolist())), mirrors[: len(matrix)])


def draws(recipe: Recipe, n_axes: int, count: int = 4000) -> list[SpatialDraw]:
    rng = np.random.default_rng(0)
    return [draw_spatial(recipe, n_axes, rng) for _ in range(count)]


@pytest.mark.parametrize("n_axes", [2, 3])
def test_probabilities_of_rotation_scaling_and_mirrors(n_axes):
    drawn = draws(Recipe(), n_axes)
    scales = np.array([abs(np.linalg.det(draw.array)) ** (1 / n_axes) for draw in drawn])
    scaled = np.abs(scales - 1) > 1e-9
    rotated = np.array([np.abs(d.array / s - np.eye(n_axes)).max() > 1e-9 for d, s in zip(drawn, scales, strict=True)])
    assert scaled.mean() == pytest.approx(0.2, abs=0.025)
    assert rotated.mean() == pytest.approx(0.2, abs=0.025)
    assert (scaled & rotated).mean() == pytest.approx(0.04, abs=0.015)
    assert np.mean([draw.is_identity for draw in drawn]) == pytest.approx(0.64, abs=0.03)
    assert np.mean([draw.mirrors for draw in drawn], axis=0) == pytest.approx([0.5] * n_axes, abs=0.03)
    assert scales[scaled].min() > 0.7 and scales[scaled].max() < 1.4
    assert scales[scaled].mean() == pytest.approx(1.05, abs=0.03)


def test_angles_are_uniform_in_the_range():
    recipe = Recipe(rotation_probability=1, scaling_probability=0, rotation_degrees=30)
    angles = np.array([math.degrees(math.atan2(*draw.array[:, 0][::-1])) for draw in draws(recipe, 2)])
    assert np.abs(angles).max() <= 30 + 1e-9
    assert angles.std() == pytest.approx(60 / math.sqrt(12), rel=0.05)
    tilts = np.array([np.degrees(np.arcsin(-draw.array[2, 0])) for draw in draws(recipe, 3)])
    assert tilts.std() == pytest.approx(60 / math.sqrt(12), rel=0.05)


def test_in_plane_transforms_leave_axis_0_alone():
    drawn = draws(ALWAYS.model_copy(update={"in_plane": True}), 3, 20)
    assert all(draw.is_in_plane and not draw.is_identity for draw in drawn)
    assert not any(draw.is_in_plane for draw in draws(ALWAYS, 3, 20))
    assert not any(draw.is_in_plane for draw in draws(ALWAYS, 2, 20))


def test_only_listed_axes_are_mirrored_and_no_augmentation_is_the_identity():
    mirrors = np.array([draw.mirrors for draw in draws(Recipe(mirror_axes=(1,)), 3, 200)])
    assert mirrors.any(0).tolist() == [False, True, False]
    assert set(draws(no_augmentation(), 3, 20)) == {identity_draw(3)}


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_rot90(quarters):
    image = torch.arange(2 * 8 * 8, dtype=torch.float32).view(2, 8, 8)
    moved = move_image(image, turned([quarters * math.pi / 2]), (3.5, 3.5), (8, 8))
    assert np.allclose(moved, np.rot90(image, -quarters, axes=(1, 2)), atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_about_each_axis_is_rot90(axis):
    image = torch.arange(6**3, dtype=torch.float32).view(1, 6, 6, 6)
    angles = [math.pi / 2 if other == axis else 0.0 for other in range(3)]
    first, second = [(2, 3), (3, 1), (1, 2)][axis]
    moved = move_image(image, turned(angles), (2.5,) * 3, (6,) * 3)
    assert np.allclose(moved, np.rot90(image, -1, axes=(first, second)), atol=1e-3)


def test_scaling_by_two_shows_every_second_voxel():
    draw = SpatialDraw(((2.0, 0.0), (0.0, 2.0)), (False, True))
    image = torch.arange(100, dtype=torch.float32).view(1, 10, 10)
    assert torch.allclose(move_image(image, draw, (4, 4), (3, 3))[0], image[0, 2:7:2, 2:7:2].flip(1), atol=1e-4)


@PATCHES
def test_reading_only_the_box_gives_the_same_as_reading_all(patch):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(2, *(20,) * len(patch))).astype(np.float32))
    for _ in range(15):
        draw = draw_spatial(ALWAYS, len(patch), rng)
        centre = rng.uniform(8, 12, len(patch))
        low, high = source_box(draw, centre, patch)
        box = image[(slice(None), *(slice(start, stop) for start, stop in zip(low, high, strict=True)))]
        assert all(start >= 0 and stop <= 20 for start, stop in zip(low, high, strict=True))
        moved = move_image(box.contiguous(), draw, tuple(centre - low), patch)
        assert torch.allclose(moved, move_image(image, draw, tuple(centre), patch), atol=1e-4)


@PATCHES
def test_the_box_of_an_identity_is_the_patch(patch):
    centre = [4 + (edge - 1) / 2 for edge in patch]
    low, high = source_box(identity_draw(len(patch)), centre, patch)
    assert low == (4,) * len(patch)
    assert high == tuple(4 + edge for edge in patch)


def test_in_plane_images_are_moved_slice_by_slice():
    image = torch.randn(2, 4, 12, 12)
    flat = turned([0.5])
    whole = SpatialDraw(((1.0, 0.0, 0.0), *((0.0, *row) for row in flat.matrix)), (True, False, False))
    moved = move_image(image, whole, (1.5, 5.5, 5.5), (4, 9, 8))
    for index in range(4):
        assert torch.allclose(moved[:, 3 - index], move_image(image[:, index], flat, (5.5, 5.5), (9, 8)), atol=1e-5)
    beyond = move_image(image, whole, (-0.5, 5.5, 5.5), (4, 9, 8))
    assert not beyond[:, 2:].any() and torch.allclose(beyond[:, :2], moved[:, 2:], atol=1e-5)


@PATCHES
def test_keep_inside_puts_the_voxel_on_a_voxel_of_the_patch(patch):
    rng = np.random.default_rng(1)
    for _ in range(50):
        draw = draw_spatial(ALWAYS, len(patch), rng)
        voxel = rng.integers(0, 10, len(patch))
        start = rng.integers(0, 5, len(patch)) + (np.array(patch) - 1) / 2
        centre = keep_inside(draw, tuple(start), patch, tuple(voxel))
        place = np.linalg.solve(draw.array, voxel - np.array(centre)) + (np.array(patch) - 1) / 2
        assert np.allclose(place, np.rint(place), atol=1e-9)
        assert (place > -0.5).all() and (place < np.array(patch) - 0.5).all()


def test_keep_inside_hardly_moves_a_centre_whose_voxel_is_inside():
    draw = turned([0.3, 0.2, 0.1])
    moved = np.array(keep_inside(draw, (10.0, 10.0, 10.0), (9, 9, 9), (11, 10, 9))) - 10
    assert np.abs(moved).max() < 1
