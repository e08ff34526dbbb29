"""Known and predicted numbers of a target are drawn on one scale, and unknown voxels in a colour of their own."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from autoseg.report.number_sheet import UNKNOWN_COLOUR, NumberColumn, draw_numbers, scale_of

RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(3, 8, 9)).astype(np.float32) + 50
PREDICTED = KNOWN + 500


def columns(known: np.ndarray) -> list[NumberColumn]:
    return [NumberColumn("known", "depth", known), NumberColumn("predicted", "depth", PREDICTED)]


def test_the_scale_is_that_of_the_first_column_with_a_known_number():
    low, high = np.percentile(KNOWN, (0.5, 99.5))
    assert scale_of("depth", columns(KNOWN)) == pytest.approx((low, high))
    unknown = np.full_like(KNOWN, np.nan)
    assert scale_of("depth", columns(unknown)) == pytest.approx((low + 500, high + 500), rel=1e-5)
    assert scale_of("height", columns(KNOWN)) == (0, 1)
    assert scale_of("depth", [NumberColumn("known", "depth", np.full_like(KNOWN, 7))]) == (7, 8)


def test_unknown_voxels_have_a_colour_of_their_own():
    partly = KNOWN.copy()
    partly[:, :, :4] = np.nan
    colour = np.round(255 * np.array(to_rgb(UNKNOWN_COLOUR))).astype(int)
    shares = []
    for numbers in (KNOWN, partly):
        picture = draw_numbers(KNOWN[None], columns(numbers), (2, 1, 1), (0, 2), title="a")
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        shares.append((np.abs(picture.astype(int) - colour).max(2) <= 1).mean())
    assert shares[0] < 0.001 and shares[1] > 0.05
