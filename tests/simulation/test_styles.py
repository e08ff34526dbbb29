"""Simulated annotators draw what their style says: never a wrong label, never more than asked for."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from autoseg.core.errors import ConfigError
from autoseg.simulation.styles import (
    Style,
    annotate,
    dense_patches,
    even_slices,
    scribble_slice,
    single_points,
)

SPACING = (2.0, 1.0, 1.0)


def blobs(shape: tuple[int, int, int] = (12, 40, 36)) -> np.ndarray:
    """Two balls, 1 and 2, that touch, and a far piece of 2."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    labels = np.zeros(shape, dtype=np.uint8)
    labels[z**2 + (y + 0.3) ** 2 + x**2 < 0.2] = 1
    labels[z**2 + (y - 0.3) ** 2 + x**2 < 0.15] = 2
    labels[(y > 0.9) & (x > 0.9)] = 2
    return labels


VOLUMES = pytest.mark.parametrize("labels", [blobs((1, 40, 36)), blobs()], ids=["2d", "3d"])


def draw(labels: np.ndarray, seed: int = 0, case: str = "a", **style: object) -> np.ndarray:
    return annotate(labels, SPACING, Style(**style), seed=seed, case=case)  # type: ignore[arg-type]


@VOLUMES
@pytest.mark.parametrize(
    "style", [{"scribbles": True}, {"points": 9}, {"patches": 3}], ids=lambda style: next(iter(style))
)
def test_seed_and_case_decide_everything(labels, style):
    first = draw(labels, **style)
    assert np.array_equal(first, draw(labels, **style))
    assert not np.array_equal(first, draw(labels, seed=1, **style))
    assert not np.array_equal(first, draw(labels, case="b", **style))
    assert first.shape == labels.shape
    assert 0 < first.mean() < 0.5


def test_one_kind_of_drawing_does_not_change_another():
    both = draw(blobs(), scribbles=True, points=30)
    assert np.array_equal(both, draw(blobs(), scribbles=True) | draw(blobs(), points=30))


def test_no_style_leaves_everything_annotated():
    assert draw(blobs()).all()


@VOLUMES
def test_every_class_of_every_slice_is_scribbled_in_its_largest_piece_only(labels):
    drawn = draw(labels, scribbles=True)
    for truth, marked in zip(labels, drawn, strict=True):
        assert set(np.unique(truth[marked])) == set(np.unique(truth))
        for value in np.unique(truth):
            pieces = label(truth == value, connectivity=2)
            largest = 1 + np.argmax(np.bincount(pieces.reshape(-1))[1:])
            assert (pieces[marked & (truth == value)] == largest).all()


def test_a_slice_of_one_class_gets_one_scribble():
    drawn = scribble_slice(np.random.default_rng(0), np.zeros((20, 30), dtype=np.uint8))
    assert label(drawn, connectivity=2).max() == 1


def test_thicker_scribbles_mark_more():
    thin, thick = (draw(blobs(), scribbles=True, thickness=n) for n in (1, 5))
    assert thin.sum() < 0.5 * thick.sum()


@pytest.mark.parametrize(
    ("n_slices", "fraction", "expected"),
    [
        (36, 0.2, (2, 7, 12, 18, 23, 28, 33)),
        (40, 1 / 5, (2, 7, 12, 17, 22, 27, 32, 37)),
        (30, 0.1, (5, 15, 25)),
        (10, 0.01, (5,)),
        (3, 1.0, (0, 1, 2)),
        (1, 0.5, (0,)),
    ],
)
def test_slices_are_even_and_margins_equal(n_slices, fraction, expected):
    assert even_slices(n_slices, fraction) == expected


@pytest.mark.parametrize("n_slices", range(1, 60))
def test_margins_and_gaps_differ_by_one_at_most(n_slices):
    for fraction in (0.05, 0.1, 0.2, 1 / 3, 0.7):
        chosen = even_slices(n_slices, fraction)
        assert len(chosen) == max(1, int(fraction * n_slices + 0.5))
        assert abs(chosen[0] - (n_slices - 1 - chosen[-1])) <= 1
        gaps = np.diff(chosen)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("start", "expected"), [(0.0, (0, 10, 20)), (0.25, (2, 12, 22)), (0.999, (9, 19, 29))])
def test_slices_start_at_the_given_share(start, expected):
    assert even_slices(30, 0.1, start) == expected


def test_every_case_starts_elsewhere_and_every_slice_is_drawn_somewhere():
    labels = np.zeros((10, 4, 4), dtype=np.uint8)
    per_case = [draw(labels, case=str(case), slices=0.2).all(axis=(1, 2)) for case in range(60)]
    assert {tuple(np.diff(np.flatnonzero(drawn))) for drawn in per_case} == {(5,)}
    assert np.any(per_case, axis=0).all()
    again = draw(labels, case="7", slices=0.2).all(axis=(1, 2))
    np.testing.assert_array_equal(again, per_case[7])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_dense_along_the_axis(axis):
    drawn = np.moveaxis(draw(blobs(), slices=0.25, start=0.5, axis=axis), axis, 0)
    chosen = even_slices(len(drawn), 0.25)
    assert drawn[list(chosen)].all()
    assert drawn.sum() == len(chosen) * drawn[0].size


def test_a_simulated_annotator_draws_in_the_only_slice_of_a_file():
    labels = np.zeros((1, 24, 32), dtype=np.uint16)
    labels[0, 4:12, 5:20] = 1
    assert annotate(labels, (1.0, 2.0, 2.0), Style(slices=0.5), seed=1, case="a").all()


def test_scribbles_on_some_slices_leave_the_others_alone():
    drawn = draw(blobs(), scribbles=True, slices=0.25, start=0.5)
    assert np.flatnonzero(drawn.any(axis=(1, 2))).tolist() == list(even_slices(12, 0.25))
    assert not drawn.any(axis=0).all()


@VOLUMES
def test_points_are_shared_equally_by_the_classes(labels):
    drawn = draw(labels, points=30)
    assert drawn.sum() == 30
    assert np.bincount(labels[drawn]).tolist() == [10, 10, 10]


def test_the_remainder_goes_to_random_classes_and_every_class_gets_one():
    rng = np.random.default_rng(0)
    numbers = [np.bincount(blobs()[single_points(rng, blobs(), 4)], minlength=3).tolist() for _ in range(30)]
    assert {tuple(counts) for counts in numbers} == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}


def test_a_small_class_gives_what_it_has():
    labels = np.zeros((1, 10, 10), dtype=np.uint8)
    labels[0, 0, :2] = 1
    labels[0, 5] = 2
    rng = np.random.default_rng(0)
    assert np.bincount(labels[single_points(rng, labels, 21)]).tolist() == [10, 2, 9] or np.bincount(
        labels[single_points(rng, labels, 21)]
    ).tolist() == [9, 2, 10]
    assert single_points(rng, labels, 1000).all()


@VOLUMES
def test_patches_are_boxes_of_their_size_half_of_them_around_foreground(labels):
    size = (min(3, labels.shape[0]), 6, 5)
    for seed in range(10):
        drawn = dense_patches(np.random.default_rng(seed), labels, 1, size)
        corners = np.argwhere(drawn)
        assert tuple(corners.max(axis=0) - corners.min(axis=0) + 1) == size
        assert drawn.sum() == np.prod(size)
        assert labels[drawn].any()
        assert dense_patches(np.random.default_rng(seed), labels, 4, size).sum() > 2 * np.prod(size)


def test_a_patch_larger_than_the_case_is_the_case():
    assert draw(blobs(), patches=1, patch_size=(99, 99, 99)).all()


def test_without_foreground_patches_lie_anywhere():
    assert draw(np.zeros((4, 20, 20), np.uint8), patches=2, patch_size=(2, 5, 5)).sum() == 100


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"slices": 0.0}, "--slices: found 0.0, expected a fraction above 0, up to 1"),
        ({"slices": 20}, "--slices: found 20, expected"),
        ({"slices": 0.5, "start": 1.0}, "--start: found 1.0, expected a share of 0 or more, below 1"),
        ({"points": 9, "start": 0.5}, "--start: found 0.5, expected a share .* with --slices"),
        ({"patches": -1}, "--patches: found -1, expected 0 or more"),
        ({"points": -1}, "--points: found -1, expected 0 or more"),
        ({"thickness": 0}, "--thickness: found 0, expected 1 or more"),
        ({"patch_size": (0, 4, 4)}, r"--patch-size: found \(0, 4, 4\), expected three numbers"),
        ({"axis": 3}, "--axis: found 3, expected 0, 1 or 2"),
    ],
)
def test_numbers_out_of_range_are_refused(style, message):
    with pytest.raises(ConfigError, match=message):
        Style(**style)
