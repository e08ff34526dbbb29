"""Sampling between voxels: as scipy does it, whatever the pieces, with nothing but the fill beyond the margin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from autoseg.augmentation import sampling_grid as cells
from autoseg.augmentation.rotate import rotation_matrix
from autoseg.augmentation.sampling_grid import axis_strides, interpolate, make_source, pieces

DIMENSIONS = pytest.mark.parametrize("shape", [(19, 23), (11, 14, 13)], ids=["2d", "3d"])
PATCHES = {2: (13, 17), 3: (7, 10, 9)}


def matrices(n_axes: int) -> list[np.ndarray]:
    turned = rotation_matrix([0.4, -0.3, 0.6][: 1 if n_axes == 2 else 3])
    return [turned, 0.7 * turned, 1.4 * turned, np.diag([1.3, 0.8, 1.1][:n_axes]), np.eye(n_axes)]


def layers(shape: tuple[int, ...], count: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32))


@DIMENSIONS
@pytest.mark.parametrize("shift", [0.3, 6.0, 50.0], ids=["inside", "over the border", "outside"])
def test_linear_values_are_those_of_scipy(shape, shift):
    patch, centre = PATCHES[len(shape)], np.array(shape) / 2 + shift
    given = layers(shape)
    for matrix in matrices(len(shape)):
        moved = interpolate(make_source(given, matrix, centre, patch, 0))
        offset = centre - matrix @ ((np.array(patch) - 1) / 2)
        for layer, actual in zip(given.double().numpy(), moved, strict=True):
            expected = ndimage.affine_transform(
                layer, matrix, offset, output_shape=patch, order=1, mode="grid-constant", prefilter=False
            )
            assert np.abs(actual.numpy() - expected).max() < 1e-4


@DIMENSIONS
def test_the_size_of_the_pieces_changes_nothing(shape, monkeypatch):
    source = make_source(layers(shape), matrices(len(shape))[0], np.array(shape) / 2, PATCHES[len(shape)], 0)
    whole = interpolate(source)
    assert len(list(pieces(source))) == 1
    monkeypatch.setattr(cells, "PIECE", 1)
    assert len(list(pieces(source))) == PATCHES[len(shape)][0]
    assert torch.equal(interpolate(source), whole)


@DIMENSIONS
def test_points_follow_the_patch_and_lie_in_their_cells(shape):
    matrix, patch = matrices(len(shape))[1], PATCHES[len(shape)]
    source = make_source(layers(shape), matrix, (np.array(shape) - 1) / 2, patch, 0)
    assert source.layers.shape[1:] == shape  # nothing lies outside, so that nothing is added
    actual = []
    for piece in pieces(source):
        corner = np.stack(np.unravel_index(piece.corner.numpy(), shape))
        actual.append(corner + np.stack([part.numpy() for part in piece.fractions]))
        assert all(part.min() >= 0 and part.max() <= 1 for part in piece.fractions)
    places = np.indices(patch).reshape(len(patch), -1) - (np.array(patch)[:, None] - 1) / 2
    assert np.abs(np.concatenate(actual, axis=1) - (matrix @ places + (np.array(shape)[:, None] - 1) / 2)).max() < 1e-5
    assert axis_strides(source) == tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def test_an_axis_of_one_voxel_has_a_margin():
    source = make_source(torch.ones(1, 1, 6), np.diag([1.0, 0.8]), (0.0, 2.5), (1, 4), 0)
    assert torch.allclose(interpolate(source), torch.ones(1, 1, 4))
    wide = make_source(torch.ones(1, 1, 6), np.diag([1.0, 0.8]), (0.0, 2.5), (3, 4), 0)
    assert torch.allclose(interpolate(wide)[0, :, 0], torch.tensor([0.0, 1.0, 0.0]))
