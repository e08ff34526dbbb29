from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.evaluation.disagreement import Disagreement
from autoseg.report.overlay import BACKGROUND_COLOUR, PALETTE
from autoseg.report.review_picture import LEAST_HALF_WINDOW, draw_disagreements, stacked, window

HEADS = (Head("background", (0,), (0,), True), Head("a", (1,), (1,)))


def labels_with(ignore):
    return Labels(class_values=(0, 1), class_names=("background", "a"), heads=HEADS, ignore=ignore)


def group(**place):
    return Disagreement(case="x", drawn="a", predicted="background", n_voxels=4, mean_probability=0.9, **place)


def has_colour(picture, colour):
    return bool((np.abs(picture / 255 - np.array(colour)).max(axis=-1) < 0.06).any())


@pytest.mark.parametrize("shape", [(1, 30, 40), (5, 30, 40)], ids=["2d", "3d"])
@pytest.mark.parametrize("ignore", [None, 2])
def test_each_group_is_a_row_that_shows_what_the_model_says_where_it_differs(shape, ignore):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    drawn = np.full(shape, 0 if ignore is None else ignore, dtype=np.uint8)
    z = shape[0] - 1
    drawn[z, 10:14, 10:14] = 1
    predicted = np.zeros(shape, dtype=np.uint8)
    geometry = Geometry(spacing=(3.0, 1.0, 1.0))
    groups = [group(z=z, y=11, x=11), group(z=z, y=29, x=39)]
    picture = draw_disagreements(groups, lambda case: (image, drawn, predicted, geometry), labels_with(ignore))
    assert picture.dtype == np.uint8
    assert has_colour(picture, BACKGROUND_COLOUR)  # drawn as a, background by the model
    if ignore is not None:
        assert has_colour(picture, PALETTE[0])
    one = draw_disagreements(groups[:1], lambda case: (image, drawn, predicted, geometry), labels_with(ignore))
    assert len(picture) > 1.8 * len(one)


def test_the_window_stays_inside_and_never_gets_tiny():
    assert window(5, 100, 1.0) == slice(0, 46)
    assert window(95, 100, 1.0) == slice(55, 100)
    assert window(50, 100, 20.0) == slice(50 - LEAST_HALF_WINDOW, 50 + LEAST_HALF_WINDOW + 1)


def test_pictures_of_different_width_are_stacked_on_white():
    made = stacked([np.zeros((2, 3, 3), np.uint8), np.zeros((1, 5, 3), np.uint8)])
    assert made.shape == (3, 5, 3)
    assert (made[:2, 3:] == 255).all()
    assert not made[2].any()
