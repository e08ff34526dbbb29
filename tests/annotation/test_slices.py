"""The slice axis is stated, or shown by the annotation or by an unambiguous spacing. Otherwise it is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.annotation.slices import SliceCounts, case_axis, common_axis, is_clear, measure_slices, spacing_axis
from autoseg.dataset.labels import CaseStatement
from autoseg.simulation.styles import Style, annotate

UNKNOWN = 3
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 1, 0]], bool)
ISO = (1.0, 1.0, 1.0)


def truth_of(seed: int, shape: tuple[int, ...] = (24, 30, 28)) -> np.ndarray:
    """Two balls somewhere."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.uint8)
    for index in (1, 2):
        middle = [edge * rng.uniform(0.3, 0.7) for edge in shape]
        distance = np.sqrt(sum((part - mid) ** 2 for part, mid in zip(np.indices(shape), middle, strict=True)))
        truth[distance < rng.uniform(4, 7)] = index
    return truth


def drawn(seed: int, style: Style) -> np.ndarray:
    truth = truth_of(seed)
    return np.where(annotate(truth, ISO, style, seed=seed, case=str(seed)), truth, UNKNOWN).astype(np.uint8)


def shown(style: Style, n_cases: int = 4) -> int | None:
    return common_axis([measure_slices(drawn(seed, style), SETS, ISO) for seed in range(n_cases)])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_whole_slices_show_their_axis(axis, share):
    assert shown(Style(slices=share, axis=axis)) == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("share", [0.1, 0.25])
def test_scribbles_in_some_slices_show_their_axis(axis, share):
    assert shown(Style(slices=share, scribbles=True, axis=axis)) == axis


@pytest.mark.parametrize(
    "style", [Style(patches=4), Style(points=40), Style(patches=1, patch_size=(4, 12, 12)), Style()]
)
def test_other_drawings_show_none(style):
    assert shown(style) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scribbles_in_every_slice_are_never_taken_for_slices_of_another_axis(axis):
    assert shown(Style(scribbles=True, axis=axis)) in (None, axis)


def test_lines_through_the_middle_of_every_slice_are_no_slices_across_their_row():
    truth = truth_of(0)
    codes = np.full(truth.shape, UNKNOWN, np.uint8)
    for number in range(len(truth)):
        codes[number, 15] = np.where(truth[number, 15] == 0, UNKNOWN, truth[number, 15])
        codes[number, 3 + number % 5, 4:20] = 0
    assert common_axis([measure_slices(codes, SETS, ISO)]) is None


def test_a_single_line_lies_in_planes_of_two_axes():
    codes = np.full((9, 20, 20), UNKNOWN, np.uint8)
    codes[4, 5, 2:15] = 1
    assert measure_slices(codes, SETS, ISO).drawn_axis is None
    codes[4, 6:15, 4] = 2
    assert measure_slices(codes, SETS, ISO).drawn_axis == 0


def test_cases_without_annotation_show_no_axis():
    absent = CaseStatement(absent=frozenset({2}))  # all but class 2 is left by that: code 4
    codes = np.full((8, 9, 9), 4, np.uint8)
    assert measure_slices(codes, SETS, ISO, absent) == SliceCounts()
    codes[2] = 0
    assert measure_slices(codes, SETS, ISO, absent).drawn_axis == 0


def test_cases_that_show_different_axes_show_none():
    cases = [
        measure_slices(drawn(seed, Style(slices=0.2, axis=axis)), SETS, ISO) for seed, axis in enumerate((0, 0, 2))
    ]
    assert common_axis(cases) is None and not any(is_clear(case, None) for case in cases)
    thick = measure_slices(drawn(0, Style(slices=0.2, axis=0)), SETS, (4.0, 1.0, 1.0))
    turned = measure_slices(drawn(0, Style(slices=0.2, axis=2)), SETS, (1.0, 1.0, 4.0))
    assert common_axis([thick, turned]) is None  # each goes by its own spacing
    assert is_clear(thick, None) and is_clear(turned, None)
    odd = measure_slices(drawn(0, Style(slices=0.2, axis=1)), SETS, (4.0, 1.0, 1.0))
    assert common_axis([odd]) == 1  # the drawing before the spacing


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((5.0, 1.0, 1.0), 0), ((0.7, 2.5, 0.7), 1), ((1.0, 1.0, 10.0), 2), ((1.0, 1.0, 1.0), None),
        ((0.6, 0.8, 0.8), None), ((1.2, 1.0, 1.0), None), ((5.0, 2.0, 1.0), None), ((5.0, 5.0, 1.0), None),
    ],
)  # fmt: skip
def test_only_one_clearly_coarser_spacing_counts(spacing, axis):
    assert spacing_axis(spacing) == axis == case_axis((9, 9, 9), spacing, None)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flat_image_has_its_slices_along_its_single_voxel(axis):
    shape = [9, 8, 7]
    shape[axis] = 1
    assert case_axis(shape, ISO, (axis + 1) % 3) == axis
    evidence = measure_slices(np.zeros(shape, np.uint8), SETS, ISO)
    assert is_clear(evidence, None) and common_axis([evidence]) is None
