"""Drawn transforms: their distribution, hand-computed rotations, the box they read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from moving import moving
from scipy import ndimage

from autoseg.augmentation.move_labels import move_codes
from autoseg.augmentation.recipes import Recipe, draw_warp, no_augmentation
from autoseg.augmentation.rotate import Rotate, rotation_matrix
from autoseg.augmentation.warp import (
    Warp,
    identity,
    keep_inside,
    move_image,
    source_box,
)

ALWAYS = moving(180)
PATCHES = pytest.mark.parametrize("patch", [(7, 6), (5, 7, 6)], ids=["2d", "3d"])


def turned(angles: list[float], mirrors: tuple[bool, ...] = (False, False, False)) -> Warp:
    matrix = rotation_matrix(angles)
    return Warp(tuple(map(tuple, matrix.tolist())), mirrors[: len(matrix)])


def draws(recipe: Recipe, n_axes: int, count: int = 4000) -> list[Warp]:
    rng = np.random.default_rng(0)
    return [draw_warp(recipe, (1,) * n_axes, rng) for _ in range(count)]


@pytest.mark.parametrize("n_axes", [2, 3])
def test_probabilities_of_rotation_scaling_and_mirrors(n_axes):
    drawn = draws(moving(share=0.2), n_axes)
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
    recipe = Recipe((Rotate(probability=1),))
    angles = np.array([math.degrees(math.atan2(*draw.array[:, 0][::-1])) for draw in draws(recipe, 2)])
    assert np.abs(angles).max() <= 30 + 1e-9
    assert angles.std() == pytest.approx(60 / math.sqrt(12), rel=0.05)
    tilts = np.array([np.degrees(np.arcsin(-draw.array[2, 0])) for draw in draws(recipe, 3)])
    assert tilts.std() == pytest.approx(60 / math.sqrt(12), rel=0.05)


def test_in_plane_transforms_leave_axis_0_alone():
    drawn = draws(moving(180, in_plane=True), 3, 20)
    assert all(draw.is_in_plane and not draw.is_identity for draw in drawn)
    assert not any(draw.is_in_plane for draw in draws(ALWAYS, 3, 20))
    assert not any(draw.is_in_plane for draw in draws(ALWAYS, 2, 20))


def test_only_listed_axes_are_mirrored_and_no_augmentation_is_the_identity():
    mirrors = np.array([draw.mirrors for draw in draws(moving(mirror_axes=(1,)), 3, 200)])
    assert mirrors.any(0).tolist() == [False, True, False]
    (plain,) = draws(no_augmentation(), 3, 1)
    assert plain.is_identity and plain.mirrors == (False, False, False)


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
    draw = Warp(((2.0, 0.0), (0.0, 2.0)), (False, True))
    image = torch.arange(100, dtype=torch.float32).view(1, 10, 10)
    assert torch.allclose(move_image(image, draw, (4, 4), (3, 3))[0], image[0, 2:7:2, 2:7:2].flip(1), atol=1e-4)


@PATCHES
def test_reading_only_the_box_gives_the_same_as_reading_all(patch):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(2, *(20,) * len(patch))).astype(np.float32))
    for _ in range(15):
        draw = draw_warp(ALWAYS, patch, rng)
        centre = rng.uniform(8, 12, len(patch))
        low, high = source_box(draw, centre, patch)
        box = image[(slice(None), *(slice(start, stop) for start, stop in zip(low, high, strict=True)))]
        assert all(start >= 0 and stop <= 20 for start, stop in zip(low, high, strict=True))
        moved = move_image(box.contiguous(), draw, tuple(centre - low), patch)
        assert torch.allclose(moved, move_image(image, draw, tuple(centre), patch), atol=1e-4)


@PATCHES
def test_the_box_of_an_identity_is_the_patch(patch):
    centre = [4 + (edge - 1) / 2 for edge in patch]
    low, high = source_box(identity(len(patch)), centre, patch)
    assert low == (4,) * len(patch)
    assert high == tuple(4 + edge for edge in patch)


def test_in_plane_images_are_moved_slice_by_slice():
    image = torch.randn(2, 4, 12, 12)
    flat = turned([0.5])
    whole = Warp(((1.0, 0.0, 0.0), *((0.0, *row) for row in flat.matrix)), (True, False, False))
    moved = move_image(image, whole, (1.5, 5.5, 5.5), (4, 9, 8))
    for index in range(4):
        assert torch.allclose(moved[:, 3 - index], move_image(image[:, index], flat, (5.5, 5.5), (9, 8)), atol=1e-5)
    beyond = move_image(image, whole, (-0.5, 5.5, 5.5), (4, 9, 8))
    assert not beyond[:, 2:].any() and torch.allclose(beyond[:, :2], moved[:, 2:], atol=1e-5)


@PATCHES
def test_keep_inside_puts_the_voxel_on_a_voxel_of_the_patch(patch):
    rng = np.random.default_rng(1)
    for _ in range(50):
        draw = draw_warp(ALWAYS, patch, rng)
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


@PATCHES
def test_a_displacement_moves_every_point_and_reads_no_more_than_its_box(patch):
    """Displaced points, checked against scipy; reading only the box gives what reading everything gives."""
    rng = np.random.default_rng(0)
    n_axes = len(patch)
    image = rng.normal(size=(20,) * n_axes).astype(np.float32)
    for _ in range(5):
        warp = draw_warp(ALWAYS, patch, rng).displaced(rng.uniform(-2, 2, (n_axes, *patch)).astype(np.float32))
        centre = rng.uniform(8, 12, n_axes)
        half = (np.array(patch) - 1) / 2
        steps = np.stack(np.meshgrid(*(np.arange(edge) for edge in patch), indexing="ij")).reshape(n_axes, -1)
        points = centre[:, None] + warp.array @ (steps - half[:, None]) + warp.displacement.reshape(n_axes, -1)
        expected = ndimage.map_coordinates(image, points, order=1, mode="grid-constant").reshape(patch)
        expected = np.flip(expected, [axis for axis, is_mirrored in enumerate(warp.mirrors) if is_mirrored])
        low, high = source_box(warp, centre, patch)
        inside = tuple(slice(max(start, 0), stop) for start, stop in zip(low, high, strict=True))
        first = [part.start for part in inside]
        box = torch.from_numpy(image[inside].copy())[None]
        moved = move_image(box, warp, tuple(centre - first), patch)
        assert np.allclose(moved[0], expected, atol=1e-4)


@PATCHES
def test_a_displaced_patch_holds_the_voxel_that_it_was_drawn_for(patch):
    rng = np.random.default_rng(1)
    for _ in range(20):
        warp = draw_warp(ALWAYS, patch, rng).displaced(rng.uniform(-2, 2, (len(patch), *patch)).astype(np.float32))
        voxel = rng.integers(0, 10, len(patch))
        codes = torch.full((10,) * len(patch), 9, dtype=torch.uint8)
        codes[tuple(voxel)] = 1
        start = rng.integers(2, 7, len(patch)) + 0.5
        centre = keep_inside(warp, tuple(start), patch, tuple(voxel))
        assert (move_codes(codes, warp, centre, patch, unknown=9, outside=9) == 1).any()
