"""Promises narrow sets exactly as far as they say, never what was drawn, and never to nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance

from autoseg.annotation import set_maps as set_map
from autoseg.annotation.enclosure import enclosed
from autoseg.annotation.promises import (
    PromiseCounts,
    check_against_reference,
    find_kept_open,
    infer,
)
from autoseg.annotation.touches import promised_classes
from autoseg.dataset.labels import CaseStatement
from autoseg.dataset.protocol import AnnotationProtocol

UNKNOWN, COARSE = 3, 4
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], bool)  # background, 1, 2, unknown, "1 or 2"
THICK = (10.0, 1.0, 1.0)
SLICE, CASE = AnnotationProtocol(classes_complete_in="slice"), AnnotationProtocol(classes_complete_in="case")
ENCLOSES = AnnotationProtocol(background_encloses=True)
WITH_GAPS = AnnotationProtocol(background_encloses=True, gap_mm=4.0)
EVERYTHING = AnnotationProtocol("slice", {1: 3.0, 2: 5.0}, instances_touched=True, background_encloses=True, gap_mm=4.0)


def reach(mm: dict[int, float]) -> AnnotationProtocol:
    return AnnotationProtocol(reach_mm=mm)


def blank(*shape: int) -> np.ndarray:
    return np.full(shape, UNKNOWN, np.uint8)


def left(inference) -> np.ndarray:
    """(*S, K): the inferred sets, written out."""
    return inference.label_sets[inference.codes]


def test_nothing_promised_infers_nothing():
    codes = blank(2, 4, 5)
    codes[0, 1, 1] = 1
    inference = infer(codes, SETS, THICK, AnnotationProtocol())
    assert not inference.codes.any() and inference.label_sets.tolist() == [[True] * 3]


def test_a_class_without_annotation_in_an_annotated_slice_is_excluded():
    codes = blank(4, 3, 3)
    codes[0, 0, 0] = 1
    codes[1, 0, :2] = 1, 2
    codes[2, 0, 0] = 0  # only background
    sets = left(infer(codes, SETS, THICK, SLICE))
    assert sets[0, 2, 2].tolist() == [True, True, False]
    assert sets[1, 2, 2].tolist() == [True, True, True]
    assert sets[2, 2, 2].tolist() == [True, False, False]
    assert sets[3].all()  # nothing was annotated there
    assert sets[0, 0, 0].all()  # decided: nothing to infer


def test_complete_in_the_case_looks_at_all_slices_together():
    codes = blank(3, 3, 3)
    codes[0, 0, 0] = 1
    sets = left(infer(codes, SETS, THICK, CASE))
    assert (sets[1:] == [True, True, False]).all()
    assert left(infer(blank(3, 3, 3), SETS, THICK, CASE)).all()


@pytest.mark.parametrize(("spacing", "axis"), [((1.0, 5.0, 1.0), 1), ((1.0, 1.0, 5.0), 2)])
def test_slices_lie_across_the_coarsest_axis(spacing, axis):
    codes = blank(3, 3, 3)
    codes[1, 1, 1] = 1
    narrowed = infer(codes, SETS, spacing, SLICE).codes > 0
    others = tuple(other for other in range(3) if other != axis)
    assert narrowed.any(axis=others).tolist() == [False, True, False]


def test_a_2d_image_is_one_slice():
    codes = blank(1, 4, 5)
    codes[0, 0, 0] = 2
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), SLICE))
    assert (sets.reshape(-1, 3)[1:] == [True, False, True]).all()


def test_the_reach_is_exact_in_mm_and_through_all_axes():
    codes = blank(5, 9, 9)
    codes[2, 4, 4] = 1
    sets = left(infer(codes, SETS, (3.0, 1.0, 2.0), reach({1: 5.0})))
    z, y, x = np.indices(codes.shape)
    distance = np.sqrt((3 * (z - 2)) ** 2 + (y - 4) ** 2 + (2 * (x - 4)) ** 2)
    assert (distance == 5).any()  # a voxel at the distance itself is within
    np.testing.assert_array_equal(sets[..., 1], distance <= 5)
    assert sets[..., [0, 2]].all()  # class 2 has no reach


def test_out_of_reach_of_all_classes_is_background():
    codes = blank(1, 1, 20)
    codes[0, 0, 0], codes[0, 0, 19] = 1, 2
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), reach({1: 3.0, 2: 4.0})))[0, 0]
    assert sets[:4, 1].all() and not sets[4:19, 1].any()
    assert sets[15:, 2].all() and not sets[1:15, 2].any()
    assert (sets[4:15] == [True, False, False]).all()


def test_reach_excludes_nothing_of_a_class_without_annotation():
    codes = blank(2, 5, 5)
    codes[0, 0, 0] = 1
    assert left(infer(codes, SETS, THICK, reach({1: 2.0, 2: 2.0})))[..., 2].all()


def test_the_reach_is_measured_through_the_volume_with_complete_slices_too():
    codes = blank(3, 2, 30)
    codes[0, 0, 0] = 1
    codes[1, 0, 25] = 1
    both = AnnotationProtocol(classes_complete_in="slice", reach_mm={1: 12.0})
    x = np.arange(30)
    for protocol in (both, reach({1: 12.0})):
        one = left(infer(codes, SETS, THICK, protocol))[:, 0, :, 1]
        assert one[0].tolist() == ((x <= 12) | (np.hypot(10, x - 25) <= 12)).tolist()
        assert one[2].tolist() == (np.hypot(10, x - 25) <= 12).tolist()


def ring(codes, z, gap=0):
    """Draw a square of background around the middle of slice ``z`` (21, 21), open over ``gap`` voxels."""
    codes[z, 3, 3:18] = codes[z, 17, 3:18] = codes[z, 3:18, 3] = codes[z, 3:18, 17] = 0
    if gap:
        codes[z, 3, 8 : 8 + gap] = UNKNOWN


@pytest.mark.parametrize(("gap", "promised"), [(0, 0.0), (0, 4.0), (1, 2.0), (2, 3.0), (2, 4.0), (3, 4.0)])
def test_background_encloses_as_far_as_its_gaps_may_be(gap, promised):
    codes = blank(2, 21, 21)
    ring(codes, 0, gap)
    codes[0, 10, 10] = 1
    sets = left(infer(codes, SETS, THICK, AnnotationProtocol(background_encloses=True, gap_mm=promised)))
    assert (sets[0, 0] == [True, False, False]).all()
    assert sets[0, 4:17, 4:17].all()
    assert sets[1].all()  # another slice


@pytest.mark.parametrize(("gap", "promised"), [(1, 0.0), (1, 1.9), (2, 2.9), (3, 3.9), (6, 4.0)])
def test_a_wider_gap_encloses_nothing(gap, promised):
    codes = blank(1, 21, 21)
    ring(codes, 0, gap)
    codes[0, 10, 10] = 1
    protocol = AnnotationProtocol(background_encloses=True, gap_mm=promised)
    assert left(infer(codes, SETS, (999.0, 1.0, 1.0), protocol)).all()


@pytest.mark.parametrize("angle", np.linspace(0, 2 * np.pi, 13)[:-1])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.6)])
def test_gaps_are_measured_alike_in_all_directions(spacing, angle):
    """A channel leads out of a circle: it is closed from the distance of its two nearest voxels on, not before."""
    y, x = (edge * np.arange(-30, 31) for edge in spacing)
    along = y[:, None] * np.sin(angle) + x * np.cos(angle)
    across = y[:, None] * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(along, across)
    drawn = (np.abs(radius - 13) < 1.5 * max(spacing)) & ~((along > 0) & (np.abs(across) < 2.6))
    sides = (np.argwhere(drawn & (along > 0) & (sign * across > 0)) * spacing for sign in (1, -1))
    width = distance.cdist(*sides).min()
    for gap_mm, is_closed in [(0.99 * width, False), (1.01 * width, True)]:
        outside = enclosed(drawn[None], (radius < 5)[None], (1.0, *spacing), gap_mm=gap_mm, by_slice=True)[0]
        assert outside[radius > 17].all() == is_closed
        assert outside.any() == is_closed


@pytest.mark.parametrize(("promised", "is_closed"), [(0.0, False), (0.5, True)])
def test_a_line_from_corner_to_corner_is_open_unless_gaps_are_closed(promised, is_closed):
    codes = blank(1, 21, 21)
    y, x = np.indices((21, 21))
    codes[0][np.abs(y - 10) + np.abs(x - 10) == 7] = 0
    codes[0, 10, 10] = 1
    protocol = AnnotationProtocol(background_encloses=True, gap_mm=promised)
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), protocol))
    assert (sets[0, 0] == [True, False, False]).all() == is_closed and sets.all() != is_closed


def test_a_set_with_background_may_be_the_foreground_that_a_line_encloses():
    sets = np.vstack([SETS, [[True, True, False]]])
    codes = blank(1, 21, 21)
    ring(codes, 0)
    codes[0, 10, 10], codes[0, 1, 1] = 1, 5
    assert left(infer(codes, sets, (999.0, 1.0, 1.0), ENCLOSES)).all()  # something was touched on either side


@pytest.mark.parametrize("protocol", [ENCLOSES, WITH_GAPS])
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_foreground_beside_the_line_keeps_its_own_side(offset, protocol):
    codes = blank(1, 21, 21)
    ring(codes, 0)
    codes[0, 3 + offset, 10] = 1
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), protocol))
    assert sets[0, 4:17, 4:17].all() and (sets[0, 0] == [True, False, False]).all()


def test_without_foreground_or_without_background_nothing_is_enclosed():
    codes = blank(1, 21, 21)
    ring(codes, 0)
    assert left(infer(codes, SETS, (999.0, 1.0, 1.0), ENCLOSES)).all()
    codes[codes == 0] = UNKNOWN
    codes[0, 10, 10] = 1
    assert left(infer(codes, SETS, (999.0, 1.0, 1.0), ENCLOSES)).all()


def test_isotropic_volumes_are_flooded_through_all_slices():
    codes = blank(21, 21, 21)
    box = np.zeros(codes.shape, bool)
    box[3:18, 3:18, 3:18] = True
    box[4:17, 4:17, 4:17] = False
    codes[box] = 0
    codes[10, 10, 10] = 2
    sets = left(infer(codes, SETS, (1.0, 1.0, 1.0), ENCLOSES))
    assert sets[4:17, 4:17, 4:17].all()
    assert (sets[0] == [True, False, False]).all()
    codes[3, 8:14, 8:14] = UNKNOWN
    assert left(infer(codes, SETS, (1.0, 1.0, 1.0), ENCLOSES)).all()


def test_promises_hold_for_the_annotated_classes_of_a_case():
    codes = blank(1, 3, 3)
    codes[0, 0, 0] = 0
    only_one = CaseStatement(annotated=frozenset({1}))
    assert promised_classes(3, only_one) == (1,)
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), SLICE, statement=only_one))
    assert sets[0, 1, 1].tolist() == [True, False, True]


def test_a_coarse_value_is_annotation_of_each_of_its_classes():
    codes = blank(3, 3, 3)
    codes[0, 0, :2] = 1, COARSE
    codes[1, 0, 0] = COARSE
    sets = left(infer(codes, SETS, THICK, SLICE))
    assert sets[:2].all()  # in slice 1 nothing was drawn alone, and both classes were touched


def test_reach_is_measured_from_coarse_values_too():
    codes = blank(2, 4, 12)
    codes[1, 2, 0], codes[1, 2, 9:] = 1, COARSE
    sets = left(infer(codes, SETS, THICK, reach({1: 2.0, 2: 2.0})))[1, 2]
    assert sets[:, 1].tolist() == [True] * 3 + [False] * 4 + [True] * 5
    assert sets[:, 2].tolist() == [True] + [False] * 6 + [True] * 5  # class 1 was drawn at the first


def test_without_drawn_sets_no_set_is_kept_open():
    codes = blank(2, 4, 9)
    codes[1, 2, 0] = 1
    assert find_kept_open(codes, SETS, THICK, EVERYTHING) == ()
    codes[1, 2, 7:] = COARSE
    assert [item.n_voxels for item in find_kept_open(codes, SETS, THICK, SLICE)] == [2]


@given(seed=st.integers(0, 10_000), is_flat=st.booleans())
def test_laws_of_inference(seed, is_flat):
    rng = np.random.default_rng(seed)
    shape = (1, 12, 11) if is_flat else (4, 9, 8)
    codes = rng.choice(5, size=shape, p=[0.05, 0.04, 0.02, 0.88, 0.01]).astype(np.uint8)
    inference = infer(codes, SETS, (999.0, 1.0, 1.0) if is_flat else THICK, EVERYTHING)
    sets = left(inference)
    assert inference.label_sets[0].all() and sets[..., 0].all()
    assert sets[codes != UNKNOWN].all()  # drawn voxels are left alone
    assert (SETS[codes] & sets).any(axis=-1).all()  # never empty
    assert len(np.unique(inference.label_sets, axis=0)) == len(inference.label_sets)
    assert set(np.unique(inference.codes)) <= set(range(len(inference.label_sets)))
    longer = replace(EVERYTHING, reach_mm={1: 4.0, 2: 6.0})
    more = left(infer(codes, SETS, (999.0, 1.0, 1.0) if is_flat else THICK, longer))
    assert (sets <= more).all()  # a longer reach never says more


def test_too_many_sets_are_widened_never_narrowed(monkeypatch):
    rng = np.random.default_rng(0)
    n_classes = 6
    label_sets = np.concatenate((np.eye(n_classes, dtype=bool), np.ones((1, n_classes), bool)))
    codes = np.full((1, 40, 40), n_classes, np.uint8)
    codes[0, rng.integers(0, 40, 5), rng.integers(0, 40, 5)] = np.arange(1, 6)
    arguments = (codes, label_sets, (999.0, 1.0, 1.0), reach(dict.fromkeys(range(1, 6), 15.0)))
    exact = infer(*arguments)
    monkeypatch.setattr(set_map, "MAX_SETS", 4)
    widened = infer(*arguments)
    assert len(exact.label_sets) > 4 >= len(widened.label_sets)
    assert (left(exact) <= left(widened)).all() and not left(widened).all()


def test_narrowed_voxels_and_wrong_foreground_are_counted():
    codes = blank(1, 1, 10)
    codes[0, 0, 0] = 1
    dense = np.zeros((1, 1, 10), np.uint8)
    dense[0, 0, :5] = 1
    dense[0, 0, 9] = UNKNOWN  # not known in the reference either
    inference = infer(codes, SETS, (999.0, 1.0, 1.0), reach({1: 2.0}))
    counts = check_against_reference(codes, SETS, inference, dense)
    assert counts == PromiseCounts(voxels=10, drawn=1, narrowed=7, settled=0, informative=8, foreground=5, wrong=2)
    assert (counts.share("wrong"), counts.share("informative"), PromiseCounts().share("wrong")) == (0.4, 0.8, 0.0)
    assert counts + counts == PromiseCounts(20, 2, 14, 0, 16, 10, 4)
    assert check_against_reference(codes, SETS, inference).foreground == 0


def test_single_promises_are_those_that_settle_before_training():
    assert list(EVERYTHING.single_promises()) == ["classes_complete_in", "reach_mm", "background_encloses"]
    assert AnnotationProtocol(instances_touched=True).single_promises() == {}


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_lines_beside_a_thin_structure_do_not_cut_off_its_ends(distance):
    """Open at both ends: whatever the lines are grown by, the structure goes on."""
    codes = blank(1, 25, 60)
    codes[0, 12 - distance, 20:40] = codes[0, 12 + distance, 20:40] = 0
    codes[0, 12, 25:35] = 1
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), WITH_GAPS))
    assert sets[0, 12].all(axis=1)[:20].all() and sets[0, 12].all(axis=1)[40:].all()


def test_closed_lines_around_a_thin_structure_enclose_it():
    codes = blank(1, 25, 60)
    codes[0, 10:15, 20:40] = 0
    codes[0, 11:14, 21:39] = UNKNOWN
    codes[0, 12, 25:35] = 1
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), WITH_GAPS))
    assert (sets[0, :8] == [True, False, False]).all() and (sets[0, :, 45:] == [True, False, False]).all()
    assert sets[0, 12, 21:39].all()


def test_classes_that_are_not_annotated_in_a_case_are_never_excluded():
    codes = blank(1, 5, 5)
    codes[0, 0, 0], codes[0, 4, 4] = 0, 1
    protocol = AnnotationProtocol(classes_complete_in="slice")
    looked = CaseStatement(annotated=frozenset({0, 1}))
    assert left(infer(codes, SETS, (999.0, 1.0, 1.0), protocol, statement=looked))[0, 2, 2].tolist() == [True] * 3


def test_a_thin_structure_elsewhere_does_not_open_a_closed_line():
    codes = blank(1, 60, 60)
    codes[0, 3:46, 3:46] = 0
    codes[0, 4:45, 4:45] = UNKNOWN
    codes[0, 3, 8] = UNKNOWN  # a small gap, which counts as closed
    codes[0, 35, 30] = 1
    codes[0, 18, 15:30] = codes[0, 22, 15:30] = 0  # two lines inside, with foreground between them
    codes[0, 20, 20:25] = 1
    sets = left(infer(codes, SETS, (999.0, 1.0, 1.0), WITH_GAPS))
    assert (sets[0, 50:] == [True, False, False]).all()
    assert sets[0, 20, 5:44].all()
