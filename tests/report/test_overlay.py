"""The overlay shows the right slices in the right colours at the right proportions."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.dataset.labels import Labels
from autoseg.report import overlay
from autoseg.report.overlay import Layer, choose_slices, class_colours, draw_overlay


def make_labels(n: int = 2, **more: object) -> Labels:
    names = {"background": 0, **{f"class_{value}": value for value in range(1, n + 1)}, "ignore": n + 1}
    content = {"channel_names": {"0": "MR"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz", **more}
    return Dataset.from_json(content, name="test", folder=None).labels


def contains(picture: np.ndarray, colour: tuple[float, float, float], opacity: float, beneath: float) -> bool:
    expected = 255 * (opacity * np.array(colour) + (1 - opacity) * beneath)
    return bool((np.abs(picture - expected).max(axis=2) <= 3).any())


IMAGE = np.zeros((1, 4, 20, 30), dtype=np.float32)
TRUTH = np.zeros((4, 20, 30), dtype=np.uint8)
TRUTH[1, 5:15, 5:25] = 1
TRUTH[2, 5:15, 5:15] = 2
SCRIBBLES = np.full((4, 20, 30), 3, dtype=np.uint8)
SCRIBBLES[1, 8:12, 8:12] = 1
SCRIBBLES[1, 1:3] = 0


def test_dense_areas_are_translucent_and_strokes_opaque() -> None:
    labels = make_labels()
    colours = class_colours(labels)
    dense = draw_overlay(IMAGE, [Layer("truth", TRUTH)], labels, (1, 1, 1), n_slices=2)
    assert contains(dense, colours[1], 0.55, 0)
    assert contains(dense, colours[2], 0.55, 0)
    assert not contains(dense, colours[0], 0.55, 0)
    sparse = draw_overlay(IMAGE, [Layer("scribbles", SCRIBBLES)], labels, (1, 1, 1), n_slices=2)
    assert contains(sparse, colours[0], 0.95, 0)
    assert contains(sparse, colours[1], 0.95, 0)
    assert not contains(sparse, colours[2], 0.95, 0)


def test_coarse_values_are_shown() -> None:
    labels = make_labels(label_sets={"9": ["class_1", "class_2"]})
    drawn = np.where(SCRIBBLES == 1, 9, SCRIBBLES).astype(np.uint8)
    picture = draw_overlay(IMAGE, [Layer("coarse", drawn)], labels, (1, 1, 1))
    assert contains(picture, overlay.SET_COLOUR, 0.95, 0)


@pytest.mark.parametrize(
    ("shape", "spacing", "ratio"), [((20, 40), (1, 1), 0.5), ((40, 40), (1, 2), 0.5), ((20, 40), (2, 1), 1.0)]
)
def test_pixels_have_their_true_proportions(shape: tuple[int, int], spacing: tuple[float, float], ratio: float) -> None:
    black = np.zeros((1, 1, *shape), dtype=np.float32)
    area = np.full((1, *shape), 1, dtype=np.uint8)
    labels = make_labels()
    picture = draw_overlay(black, [Layer("all", area)], labels, (5, *spacing), n_slices=1)
    colour = 255 * 0.55 * np.array(class_colours(labels)[1])
    rows, columns = np.nonzero(np.abs(picture - colour).max(axis=2) <= 2)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height / width == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (3, 5, 16, 12)], ids=["2d", "3d"])
def test_any_image_gives_a_picture(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).normal(size=shape)
    image[0, 0, 0, 0] = np.nan
    empty = np.zeros(shape[1:], dtype=np.uint8)
    for channel in (0, None) if shape[0] == 3 else (0,):
        picture = draw_overlay(image, [Layer("prediction", empty)], make_labels(), (1, 1, 1), channel=channel)
        assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    assert draw_overlay(image, [], make_labels(), (1, 1, 1)).any()


def test_nothing_is_written_beyond_the_edges() -> None:
    names = make_labels(30)
    values = np.arange(32, dtype=np.uint8).repeat(40).reshape(1, 32, 40)
    layers = [Layer("a title that is much longer than a panel is wide " * 2, values)]
    picture = draw_overlay(IMAGE[:, :1, :1, :1] + np.zeros((1, 1, 32, 40)), layers, names, (1, 1, 1), title="t " * 200)
    for border in (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]):
        assert (border == 255).all()


def test_slices_with_most_foreground_are_chosen_apart_from_each_other() -> None:
    areas = [0, 0, 1, 5, 9, 8, 7, 3, 2, 0, 0, 4]
    foreground = np.zeros((len(areas), 3, 10), dtype=np.uint8)
    for z, area in enumerate(areas):
        foreground[z].flat[:area] = 1
    assert choose_slices(foreground, 1) == (4,)
    assert choose_slices(foreground, 3) == (4, 6, 11)
    assert choose_slices(foreground, 12) == tuple(range(12))


@pytest.mark.parametrize("n_slices", [1, 2, 3, 5, 8])
def test_as_many_slices_as_asked_for(n_slices: int) -> None:
    one = np.zeros((9, 4, 4), dtype=bool)
    one[4, 2, 2] = True
    for foreground in (one, np.zeros_like(one), np.ones_like(one)):
        chosen = choose_slices(foreground, n_slices)
        assert len(set(chosen)) == n_slices
        assert all(0 <= z < 9 for z in chosen)
    assert 4 in choose_slices(one, n_slices)


def test_colours_differ_for_the_first_classes() -> None:
    colours = class_colours(make_labels(10))
    assert len({colours[value] for value in range(11)}) == 11


def test_a_weighted_value_has_the_colour_of_its_class() -> None:
    weights = {"4": {"label": "class_1", "weight": 0.5}}
    labels = make_labels(2, label_weights=weights, label_sets={"5": ["class_1", "class_2"]})
    colours = class_colours(labels)
    assert colours[4] == colours[1] and colours[5] == overlay.SET_COLOUR


def test_a_layer_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"layer 'truth': shape \(3, 20, 30\), expected \(4, 20, 30\)"):
        draw_overlay(IMAGE, [Layer("truth", TRUTH[:3])], make_labels(), (1, 1, 1))


@pytest.mark.parametrize("unlabelled", [-1, 0])
def test_what_nobody_looked_at_is_clear_whatever_its_value(unlabelled: int) -> None:
    background = 0 if unlabelled else 5
    usual = make_labels()
    names = {"background": background, "class_1": 1, "class_2": 2}
    content = {"channel_names": {"0": "MR"}, "labels": names, "file_ending": ".nii.gz", "unlabelled": unlabelled}
    labels = Dataset.from_json(content, name="test", folder=None).labels
    drawn = np.array([background, 1, 2, unlabelled])[SCRIBBLES]
    assert (class_colours(labels)[background], class_colours(labels)[1]) == tuple(
        class_colours(usual)[x] for x in (0, 1)
    )
    np.testing.assert_array_equal(
        draw_overlay(IMAGE, [Layer("drawn", drawn)], labels, (1, 1, 1)),
        draw_overlay(IMAGE, [Layer("drawn", SCRIBBLES)], usual, (1, 1, 1)),
    )
