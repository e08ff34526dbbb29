"""A picture of training patches shows each voxel where it is, in the colours of the legend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.dataset.dataset import Dataset
from autoseg.report.batch_sheet import draw_batch_sheet, heading, legend, meaning_paint, patch_panels, shown_slice
from autoseg.report.overlay import PALETTE
from autoseg.report.patterns import INK, PAPER, outline, paint
from autoseg.sampling.origin import Origin
from autoseg.sampling.patch_view import Meaning, PatchView

EVERY = frozenset({0, 1, 2})
MEANINGS = (
    Meaning("annotated", frozenset({0})),
    Meaning("annotated", frozenset({1})),
    Meaning("unannotated", EVERY),
    Meaning("annotated", frozenset({1, 2})),
)
BACKGROUND, ORGAN, UNANNOTATED, EITHER = range(4)


def labels(*, sparse=True, regions=False):
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {
            "background": 0,
            "organ": [1, 2] if regions else 1,
            "tumour": 2,
            **({"ignore": 3} if sparse else {}),
        },
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if regions:
        content["regions_class_order"] = [1, 2]
    return Dataset.from_json(content, name="toy", folder=None).labels


def view(codes, n_channels=1, meanings=MEANINGS, spacing=1.0):
    codes = np.asarray(codes, np.uint8)
    n = codes.ndim
    image = np.random.default_rng(0).normal(size=(n_channels, *codes.shape)).astype(np.float32)
    origin = Origin((1, 2, 3), None, None, False, tuple(map(tuple, np.eye(n).tolist())), (False,) * n)
    return PatchView("heart_01", 4, 1, image, codes, meanings, (spacing, 1.0, 1.0)[-n:], origin, (1, 2, 3))


def scattered(code=ORGAN):
    codes = np.full((10, 12), UNANNOTATED)
    codes[3, 7] = code
    return codes


def coloured(pixels, colour):
    return (np.abs(np.asarray(pixels, float)[..., :3] - np.asarray(colour)) < 1e-6).all(axis=-1)


@pytest.mark.parametrize("as_volume", [False, True], ids=["2d", "3d"])
def test_a_labelled_voxel_is_drawn_at_its_pixels_and_nowhere_else(as_volume):
    codes = scattered()
    if as_volume:
        codes = np.stack([np.full_like(codes, UNANNOTATED), codes, np.full_like(codes, UNANNOTATED)])
    shown = view(codes)
    *_, label, over = patch_panels(shown, shown_slice(shown), labels(), ["T1"], is_colour=False)
    size = label.pixels.shape[0] // 10
    assert label.pixels.shape == over.pixels.shape == (10 * size, 12 * size, 3)
    rows, columns = np.nonzero(coloured(label.pixels, PALETTE[0]))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (3 * size, 4 * size, 7 * size, 8 * size)
    assert len(rows) == size**2


def test_the_sheet_holds_the_panels_pixel_by_pixel():
    shown = view(scattered())
    sheet = draw_batch_sheet([shown, shown], labels(), ["T1"], title="toy")
    *_, label, _ = patch_panels(shown, 0, labels(), ["T1"], is_colour=False)
    in_panel = coloured(label.pixels, PALETTE[0]).sum()
    in_swatch = 14 * 26
    colour = np.rint(np.asarray(PALETTE[0]) * 255)
    assert coloured(sheet, colour).sum() == 2 * in_panel + in_swatch


def test_unannotated_voxels_are_hatched_and_sets_striped_in_their_colours():
    painted = paint(np.full((40, 40), UNANNOTATED), [meaning_paint(m, labels()) for m in MEANINGS])
    assert coloured(painted, INK).any() and (coloured(painted, INK) | coloured(painted, PAPER)).all()
    striped = paint(np.full((40, 40), EITHER), [meaning_paint(m, labels()) for m in MEANINGS])
    shares = [coloured(striped, colour).mean() for colour in PALETTE[:2]]
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)


def test_under_the_hatching_the_image_is_seen():
    over = paint(np.full((40, 40), UNANNOTATED), [meaning_paint(m, labels()) for m in MEANINGS], over_image=True)
    assert (over[..., 3] == 0).mean() > 0.8


def test_areas_let_the_image_shine_through_and_strokes_do_not():
    areas, strokes = np.full((2, 20, 20), UNANNOTATED)
    areas[4:16, 4:16] = ORGAN
    strokes[8:10, 2:18] = ORGAN
    dark, bright = np.zeros((2, 1, 20, 20), np.float32)
    bright[0, 9, 9] = dark[0, 0, 0] = 1  # a range to display
    bright[0, 8:10, 8:10] = 1
    for codes, visible in ((areas, 0.3), (strokes, 0.0)):
        over = [
            patch_panels(replace(view(codes), image=image), 0, labels(), ["T1"], is_colour=False)[-1].pixels
            for image in (dark, bright)
        ]
        difference = np.abs(over[0] - over[1])[9 * 15 + 7, 9 * 15 + 7].max()
        assert difference > visible
        assert visible or difference < 0.3


def test_every_meaning_looks_different():
    absent = Meaning("unannotated", frozenset({0, 1}))
    meanings = [*MEANINGS, absent, Meaning("held out", frozenset({1})), Meaning("inferred", frozenset({1}))]
    drawn = [paint(np.zeros((20, 20), int), [meaning_paint(m, labels())]).tobytes() for m in meanings]
    assert len(set(drawn)) == len(meanings)


def test_the_slice_with_most_foreground_is_shown_and_the_middle_where_all_are_alike():
    codes = np.full((5, 4, 4), UNANNOTATED)
    assert shown_slice(view(codes)) == 2
    codes[1] = BACKGROUND
    assert shown_slice(view(codes)) == 1
    codes[4, 0, 0] = ORGAN
    assert shown_slice(view(codes)) == 4
    assert shown_slice(view(np.full((4, 4), ORGAN))) == 0


def test_channels_are_panels_and_colour_images_one():
    three = view(scattered(), n_channels=3)
    assert [panel.caption.split(",")[0] for panel in patch_panels(three, 0, labels(), ["r", "g", "b"], False)] == [
        "r", "g", "b", "label", "label over r",
    ]  # fmt: skip
    panels = patch_panels(three, 0, labels(), ["r", "g", "b"], is_colour=True)
    assert [panel.caption for panel in panels] == ["image", "label", "label over image"]


def test_pixels_keep_the_proportions_of_voxels():
    shown = replace(view(scattered()), spacing=(3.0, 1.0))
    *_, label, _ = patch_panels(shown, 0, labels(), ["T1"], is_colour=False)
    rows, columns = label.pixels.shape[0] / 10, label.pixels.shape[1] / 12
    assert rows / columns == pytest.approx(3, rel=0.05)


def test_the_legend_lists_what_occurs_in_how_many_patches():
    keys = legend([view(scattered()), view(scattered(EITHER))], labels())
    assert [key.text for key in keys] == ["organ (1 of 2)", "organ or tumour (1 of 2)", "unannotated (2 of 2)"]


def test_regions_are_outlined():
    grouped = labels(regions=True)
    codes = np.full((12, 12), BACKGROUND)
    codes[4:8, 4:8] = ORGAN
    texts = [key.text for key in legend([view(codes)], grouped)]
    assert texts[-2:] == ["outline of region organ", "outline of region tumour"]
    *_, over = patch_panels(view(codes), 0, grouped, ["T1"], is_colour=False)
    size = over.pixels.shape[0] // 12
    edge = coloured(over.pixels, PALETTE[-1])
    inside = np.zeros_like(edge)
    inside[4 * size : 8 * size, 4 * size : 8 * size] = True
    np.testing.assert_array_equal(edge, outline(inside))


def test_a_heading_says_case_place_and_share():
    first, second, third = heading(view(scattered()), 0, 1, labels())
    assert "heart_01" in first
    assert "z 1, y 2, x 3" in second and "0.8% annotated" in second
    assert "iteration 4, sample 1" in third
