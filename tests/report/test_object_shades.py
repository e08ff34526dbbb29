"""Objects of a picture: those that touch have other shades, and lines lie between them."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.report.object_shades import N_SHADES, edges, shades_of


def test_objects_that_share_an_edge_or_a_corner_have_other_shades():
    board = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((4, 4), dtype=int))
    shades = shades_of(board)
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved = np.roll(board, (-rows, -columns), (0, 1)), np.roll(shades, (-rows, -columns), (0, 1))
        inside = (slice(0, 19), slice(1, 19))
        differs = (moved[0] != board)[inside]
        assert differs.any() and (moved[1] != shades)[inside][differs].all()
    assert shades.max() < N_SHADES
    assert all(len(np.unique(shades[board == number])) == 1 for number in range(1, 26))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 3)])
def test_a_slice_without_objects_has_one_shade_and_no_edges(shape):
    empty = np.zeros(shape, dtype=np.uint16)
    assert not shades_of(empty).any() and not edges(empty).any()


def test_edges_are_pixels_of_objects_beside_another_value():
    objects = np.array([[0, 7, 7, 7, 3, 3]])
    assert edges(objects).tolist() == [[False, True, False, True, True, False]]
