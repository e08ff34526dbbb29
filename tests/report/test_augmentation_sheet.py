"""The picture of augmented patches shows the same sections beside each other, and cuts across all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_batch_sheet import BACKGROUND, ORGAN, UNANNOTATED, labels, view

from autoseg.augmentation.sections import Section
from autoseg.report.augmentation_sheet import draw_augmentation_sheet, source_slice


def moved(shape=(4, 8, 8), **changes):
    codes = np.full(shape, UNANNOTATED)
    codes[..., 2:5, 2:5] = ORGAN
    codes[..., :2] = BACKGROUND
    one = view(codes)
    return replace(one, origin=replace(one.origin, **changes))


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_a_row_has_the_original_and_the_augmented_patch(shape):
    one, two = moved(shape), moved(shape)
    single = draw_augmentation_sheet([one], [one], labels(), ["EM"])
    double = draw_augmentation_sheet([one, two], [one, two], labels(), ["EM"], title="two patches")
    assert single.dtype == np.uint8 and single.shape[2] == 3
    assert double.size > single.size
    assert double.std() > 10


def test_sections_of_the_original_are_those_that_are_shown():
    sections = (Section(), Section(1), Section(1), Section(2))
    assert [source_slice(moved(sections=sections), z) for z in range(4)] == [0, 2, 3, 3]
    flipped = moved(sections=sections, mirrors=(True, False, False))
    assert [source_slice(flipped, z) for z in range(4)] == [3, 3, 2, 0]
    assert source_slice(moved((8, 8)), 0) == 0
