from __future__ import annotations

import numpy as np
import pytest

from autoseg.annotation.untouched import untouched_components
from autoseg.assist.complete_case import complete_case
from autoseg.assist.keep_annotation import Restriction
from autoseg.cases.case import CaseRecord, Target
from autoseg.cases.label_codes import encode_target
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import CaseStatement, Head, Labels
from autoseg.evaluation.disagreement import set_names
from autoseg.inference.export import probabilities
from autoseg.inference.window import SLAB_VALUES

HEADS = (Head("background", (0,), (0,), True), Head("a", (1,), (1,)), Head("b", (2,), (7,)), Head("c", (3,), (8,)))
CLASSES = Labels(
    class_values=(0, 1, 7, 8), class_names=("background", "a", "b", "c"), ignore=9, heads=HEADS,
    set_values={5: frozenset({1, 3}), 6: frozenset({2, 3})},
    statements={"lazy": CaseStatement(annotated=frozenset({1}), absent=frozenset({3}))},
)  # fmt: skip
REGIONS = Labels(
    class_values=(0, 1, 2, 4), class_names=("background", "oedema", "core", "active"), ignore=9,
    paint_values=(1, 2, 4), set_values={5: frozenset({2, 3}), 6: frozenset({0, 1})},
    heads=(Head("whole", (1, 2, 3), (1, 2, 4)), Head("core", (2, 3), (2, 4)), Head("active", (3,), (4,))),
    statements={"lazy": CaseStatement(annotated=frozenset({1}), absent=frozenset({3}))},
)  # fmt: skip


def record(shape, spacing, spacing_before, after_crop, margin, transpose=(0, 1, 2)):
    backward = [transpose.index(axis) for axis in range(3)]
    return CaseRecord(
        case="x", geometry=Geometry(spacing=tuple(spacing_before[axis] for axis in backward)), transpose=transpose,
        shape_before_crop=tuple(size + 2 * extra for size, extra in zip(after_crop, margin, strict=True)),
        crop_low=margin, crop_high=tuple(low + size for low, size in zip(margin, after_crop, strict=True)),
        spacing_before=spacing_before, spacing=spacing, shape=shape,
    )  # fmt: skip


RECORDS = {
    "same": record((5, 6, 7), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (5, 6, 7), (0, 0, 0)),
    "finer than the plan": record((6, 5, 5), (2.0, 2.0, 2.0), (1.3, 1.1, 1.0), (9, 9, 10), (1, 2, 1), (2, 0, 1)),
    "coarse slices": record((7, 10, 8), (5.0, 1.0, 1.0), (6.0, 0.8, 0.8), (6, 13, 10), (1, 0, 2)),
    "one slice": record((1, 10, 8), (999.0, 1.0, 1.0), (999.0, 0.7, 0.7), (1, 15, 12), (0, 2, 1)),
}
EVERY_RECORD = pytest.mark.parametrize("place", RECORDS.values(), ids=RECORDS)
EVERY_LABELS = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])


def file_shape(place):
    return tuple(place.shape_before_crop[place.transpose.index(axis)] for axis in range(3))


def random_case(place, labels, case, seed=0):
    """Return drawn file values of every kind, their target, and random logits."""
    rng = np.random.default_rng(seed)
    values = list(labels.sets_by_value(case))
    drawn = rng.choice(values, size=file_shape(place)).astype(np.uint8)
    logits = rng.normal(scale=3, size=(labels.n_heads, *place.shape)).astype(np.float32)
    return drawn, encode_target(drawn, labels, case), logits


@EVERY_RECORD
@EVERY_LABELS
@pytest.mark.parametrize("case", ["x", "lazy"])
@pytest.mark.parametrize("slab_values", [1, SLAB_VALUES])
def test_every_drawn_voxel_is_kept_and_every_other_one_lies_in_its_set(place, labels, case, slab_values):
    drawn, target, logits = random_case(place, labels, case)
    made = complete_case(logits, place, labels, target, slab_values=slab_values).labels
    assert made.shape == drawn.shape
    indices = {value: index for index, value in enumerate(labels.class_values)}
    for value, members in labels.sets_by_value(case).items():
        found = {indices[item] for item in np.unique(made[drawn == value]).tolist()}
        assert found <= members
        if members == {indices.get(value)}:
            assert (made[drawn == value] == value).all()


@EVERY_RECORD
def test_a_set_gets_its_most_probable_class(place):
    drawn, target, logits = random_case(place, CLASSES, "x")
    made = complete_case(logits, place, CLASSES, target, slab_values=1).labels
    shares = probabilities(logits, place, CLASSES)  # (K, z, y, x), outside the crop 1 for background
    allowed = target.label_sets[target.codes]
    best = np.argmax(np.where(np.moveaxis(allowed, -1, 0), shares, -1), axis=0)
    np.testing.assert_array_equal(made, np.asarray(CLASSES.class_values)[best])
    assert (made[drawn == 5] == 8).any()
    assert (made[drawn == 5] == 1).any()


@EVERY_RECORD
@EVERY_LABELS
def test_with_nothing_drawn_the_completion_is_the_prediction(place, labels):
    logits = random_case(place, labels, "x")[2]
    nothing = encode_target(np.full(file_shape(place), 9, dtype=np.uint8), labels)
    made = complete_case(logits, place, labels, nothing, review=True)
    np.testing.assert_array_equal(made.labels, made.predicted)
    assert not len(made.disputed.index)


@EVERY_RECORD
@EVERY_LABELS
def test_where_every_object_was_touched_no_other_one_is_made(place, labels):
    rng = np.random.default_rng(3)
    values = [value for value, members in labels.sets_by_value("x").items() if len(members) == labels.n_classes]
    drawn = np.full(file_shape(place), values[0], dtype=np.uint8)
    corner = tuple(slice(max(1, edge // 2)) for edge in drawn.shape)
    drawn[corner] = rng.choice([0, labels.class_values[1]], size=drawn[corner].shape)
    target = encode_target(drawn, labels, "x")
    logits = random_case(place, labels, "x")[2]
    free = complete_case(logits, place, labels, target).labels
    made = complete_case(logits, place, labels, target, touches_all=True).labels
    classes = np.zeros(max(labels.class_values) + 1, dtype=int)
    classes[list(labels.class_values)] = range(labels.n_classes)
    left_over = untouched_components(classes[made], target.codes, target.label_sets, is_whole=True)
    assert untouched_components(classes[free], target.codes, target.label_sets, is_whole=True).any()
    assert not left_over.any()
    is_drawn = target.codes < labels.n_classes
    np.testing.assert_array_equal(made[is_drawn], free[is_drawn])


@EVERY_LABELS
def test_promises_narrow_what_is_left_but_not_what_was_drawn(labels):
    place = RECORDS["coarse slices"]
    drawn, target, logits = random_case(place, labels, "x")
    sets = target.label_sets.copy()
    sets[labels.unknown, 1:] = False  # whatever nobody drew is background
    made = complete_case(logits, place, labels, target, within=Target(target.codes, sets, target.undrawn)).labels
    assert (made[drawn == 9] == 0).all()
    assert (made[drawn == labels.class_values[1]] == labels.class_values[1]).all()


def test_regions_decide_together_and_an_excluded_region_stays_off():
    labels = REGIONS
    logits = np.array([[3.0], [1.0], [2.0]], dtype=np.float32)  # whole, core, active: painted as active
    sets = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)
    painted = np.array([4], dtype=np.uint8)
    restriction = Restriction(labels, sets)
    results = [int(restriction.apply(painted, logits, np.array([code]))[0]) for code in range(5)]
    assert results == [2, 1, 2, 4, 0]
    doubtful = np.array([[3.0], [-1.0], [2.0]], dtype=np.float32)
    assert int(restriction.apply(painted, doubtful, np.array([0]))[0]) == 1
    assert int(restriction.apply(painted, None, np.array([2]))[0]) == 1


@EVERY_RECORD
def test_disputed_voxels_lie_where_what_was_drawn_excludes_what_is_predicted(place):
    _, target, logits = random_case(place, CLASSES, "x")
    made = complete_case(logits, place, CLASSES, target, review=True, slab_values=1)
    class_of = {value: index for index, value in enumerate(CLASSES.class_values)}
    said = np.vectorize(class_of.get)(made.predicted)
    expected = ~target.label_sets[target.codes, said]
    assert (expected & (target.codes > CLASSES.n_classes)).any()  # sets of several classes, too
    found = np.zeros_like(expected)
    found[tuple(made.disputed.index.T)] = True
    np.testing.assert_array_equal(found, expected)
    assert len(made.disputed.index) == expected.sum()
    shares = probabilities(logits, place, CLASSES)
    voxel = tuple(made.disputed.index.T)
    np.testing.assert_allclose(made.disputed.probability, shares[(made.disputed.predicted, *voxel)], atol=1e-5)
    np.testing.assert_array_equal(made.disputed.drawn, target.codes[voxel])


def test_regions_are_disputed_with_the_confidence_of_the_surest_region_that_differs():
    place = record((1, 1, 3), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1, 1, 3), (0, 0, 0))
    drawn = np.array([[[1, 2, 0]]], dtype=np.uint8)
    logits = np.array([[4, 4, -1], [2, 2, -1], [-3, -3, -1]], dtype=np.float32).reshape(3, 1, 1, 3)
    made = complete_case(logits, place, REGIONS, encode_target(drawn, REGIONS), review=True)
    np.testing.assert_array_equal(made.disputed.index, [(0, 0, 0)])  # core where oedema was drawn
    np.testing.assert_allclose(made.disputed.probability, [1 / (1 + np.exp(-2))])
    np.testing.assert_array_equal(made.labels, drawn)


def test_an_object_that_the_annotator_says_is_not_there_is_disputed():
    place = record((1, 1, 3), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1, 1, 3), (0, 0, 0))
    sets = np.vstack([np.eye(3, dtype=bool), np.ones((1, 3), bool), [[1, 0, 1]], [[0, 1, 1]]]).astype(bool)
    labels = Labels((0, 1, 7), ("background", "liver", "tumour"), HEADS[:3], ignore=9)
    target = Target(np.array([[[4, 5, 3]]], dtype=np.uint8), sets, 3)
    logits = np.array([[0, 5, 0], [3, 0, 3], [1, 1, 1]], dtype=np.float32).reshape(3, 1, 1, 3)
    made = complete_case(logits, place, labels, target, review=True)
    assert made.disputed.index.tolist() == [[0, 0, 0], [0, 0, 1]]
    names = set_names(sets, labels.class_names)
    assert [names[code] for code in made.disputed.drawn] == ["not liver", "liver or tumour"]
    assert made.disputed.predicted.tolist() == [1, 0]
    shares = np.exp([0.0, 3, 1]) / np.exp([0.0, 3, 1]).sum()
    np.testing.assert_allclose(made.disputed.probability[0], shares[1], rtol=1e-6)
