"""True promises exclude no true voxel, whatever was drawn, along any axis, alone and together.

Truths are random objects; annotators draw strokes in them, as single classes or as sets, and keep to their promises:
what is promised is measured here on the truth, by other means than the code under test.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.annotation.promises import find_kept_open, infer
from autoseg.annotation.touches import promise_statement
from autoseg.annotation.untouched import exclude_untouched
from autoseg.cases.case import Target
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import CaseStatement
from autoseg.dataset.protocol import AnnotationProtocol

K, IGNORE = 4, 9
SET_VALUES = {5: (1, 2), 6: (0, 3), 7: (1, 2, 3), 8: (0, 1, 2)}
NAMES = ("background", "a", "b", "c")


class Drawing(NamedTuple):
    truth: np.ndarray
    codes: np.ndarray
    label_sets: np.ndarray
    statement: CaseStatement
    spacing: tuple[float, float, float]
    axis: int
    drawn: np.ndarray
    touched: list[np.ndarray]
    """Per class, where it was drawn, alone or in a set."""


def labels_of(statement: dict[str, list[str]]):
    content = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(NAMES)} | {"ignore": IGNORE},
        "label_sets": {str(value): [NAMES[index] for index in members] for value, members in SET_VALUES.items()},
        "cases": {"x": statement} if statement else {},
        "file_ending": ".nii.gz",
    }
    return Dataset.from_json(content, name="toy", folder=None).labels


def draw(seed: int, *, is_flat: bool, axis: int, in_case: bool = False) -> Drawing:
    """Draw strokes slice by slice across ``axis``; each slice that is drawn in (or the case) shows all its classes."""
    rng = np.random.default_rng(seed)
    shape = (1, 20, 18) if is_flat else (6, 12, 11)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), (0.7 if not is_flat else 0, 1.5, 1.5))
    truth = np.digitize(noise, np.quantile(noise, [0.6, 0.75, 0.9]))
    truth = rng.permutation(K)[truth] if rng.random() < 0.5 else truth
    stated = [{}, {"annotated": ["a"]}, {"annotated": ["background", "a", "b"]}, {"absent": ["c"]}][rng.integers(4)]
    if "absent" in stated:
        truth[truth == 3] = 0
    labels = labels_of(stated)
    statement = promise_statement(labels, "x")
    annotated = labels.statements.get("x", CaseStatement()).annotated
    looked = range(K) if annotated is None else annotated
    values = np.full(shape, IGNORE)
    chosen = rng.permutation(len(truth))[: rng.integers(1, len(truth) + 1)]
    for number in chosen:
        for index in np.unique(truth[number]) if not in_case else rng.permutation(K)[:2]:
            if index in looked or (index == 0 and rng.random() < 0.8):
                stroke(rng, values[number], truth[number] == index, int(index), 0 in looked)
    for index in set(np.unique(truth)) & set(looked) if in_case else ():
        number = rng.choice(np.flatnonzero((truth == index).any(axis=(1, 2))))
        stroke(rng, values[number], truth[number] == index, int(index), 0 in looked)
    sparse_spacing = [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (2.0, 0.8, 1.1)][rng.integers(3)]
    turned = [np.moveaxis(part, 0, axis) for part in (truth, values)]
    spacing = list(sparse_spacing[1:])
    spacing.insert(axis, sparse_spacing[0])
    codes, label_sets = labels.encode(np.ascontiguousarray(turned[1]), "x")
    touched = []
    for index in range(K):
        of_class = [index, *(value for value, members in SET_VALUES.items() if index in members)]
        touched.append(np.isin(turned[1], of_class))
    return Drawing(turned[0], codes, label_sets, statement, tuple(spacing), axis, turned[1] != IGNORE, touched)


def stroke(rng, values, region, index, may_be_background):
    """Draw a short line, along rows or columns, within ``region`` (y, x), of the class or of a set that holds it."""
    places = np.argwhere(region)
    if not len(places):
        return
    y, x = places[rng.integers(len(places))]
    line = np.zeros(region.shape, bool)
    length = int(rng.integers(1, 9))
    line[(slice(y, y + 1), slice(x, x + length)) if rng.random() < 0.5 else (slice(y, y + length), slice(x, x + 1))] = 1
    pieces, _ = ndimage.label(line & region)
    choices = [value for value, members in SET_VALUES.items() if index in members and (may_be_background or index)]
    value = int(rng.choice(choices)) if choices and rng.random() < 0.4 else index
    values[(pieces == pieces[y, x]) & (values == IGNORE)] = value


def true_reach(drawn: Drawing) -> dict[int, float]:
    """Farthest that a true voxel lies from a touch of its class, by comparing all pairs."""
    reach = {}
    for index in range(1, K):
        inside, touches = (np.argwhere(mask) * drawn.spacing for mask in (drawn.truth == index, drawn.touched[index]))
        if len(inside) and len(touches):
            reach[index] = max(0.1, float(np.linalg.norm(inside[:, None] - touches, axis=2).min(axis=1).max()))
        elif len(touches):
            reach[index] = 0.1
    return reach


def classes_hold(drawn: Drawing, inference) -> bool:
    left = inference.label_sets[inference.codes]
    return bool(np.take_along_axis(left, drawn.truth[..., None], axis=3).all())


def promises_of(drawn: Drawing, *, in_case: bool) -> AnnotationProtocol:
    return AnnotationProtocol(
        classes_complete_in="case" if in_case else "slice",
        reach_mm=true_reach(drawn) or None,
        background_encloses=is_enclosing(drawn),
        slice_axis=drawn.axis,
    )


def is_enclosing(drawn: Drawing) -> bool:
    """Whether in each slice with a touch of foreground, walks from it over faces reach all foreground."""
    walls = np.moveaxis(drawn.codes == 0, drawn.axis, 0)
    starts = np.moveaxis(np.any(drawn.touched[1:], axis=0), drawn.axis, 0)
    looked = range(K) if drawn.statement.annotated is None else drawn.statement.annotated
    foreground = np.moveaxis(np.isin(drawn.truth, [index for index in looked if index]), drawn.axis, 0)
    for wall, start, inside in zip(walls, starts, foreground, strict=True):
        if start.any() and wall.any():
            reached = ndimage.binary_propagation(start & ~wall, mask=~wall)
            if (inside & ~reached).any():
                return False
    return True


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 100_000), is_flat=st.booleans(), axis=st.integers(0, 2), in_case=st.booleans())
def test_true_promises_exclude_no_true_voxel_and_together_what_one_of_them_excludes(seed, is_flat, axis, in_case):
    drawn = draw(seed, is_flat=is_flat, axis=axis, in_case=in_case)
    protocol = promises_of(drawn, in_case=in_case)
    singles = list(protocol.single_promises().items())
    case = (drawn.codes, drawn.label_sets, drawn.spacing)
    alone = {name: infer(*case, single, statement=drawn.statement) for name, single in singles}
    together = infer(*case, protocol, statement=drawn.statement)
    assert all(classes_hold(drawn, inference) for inference in (*alone.values(), together))
    by_one = np.logical_and.reduce([item.label_sets[item.codes] for item in alone.values()])
    np.testing.assert_array_equal(together.label_sets[together.codes], by_one)
    left = together.label_sets[together.codes]
    assert (left | ~drawn.label_sets[drawn.codes])[drawn.drawn].all()  # nothing is taken from what was drawn
    for index in range(1, K):
        if drawn.statement.annotated is not None and index not in drawn.statement.annotated:
            assert left[..., index].all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), is_flat=st.booleans(), axis=st.integers(0, 2))
def test_touched_objects_keep_their_class_and_classes_that_nobody_looked_for(seed, is_flat, axis):
    drawn = draw(seed, is_flat=is_flat, axis=axis)
    looked = range(K) if drawn.statement.annotated is None else drawn.statement.annotated
    untouched = np.zeros(drawn.truth.shape, bool)
    for index in range(1, K):
        objects, _ = ndimage.label(drawn.truth == index, np.ones((3, 3, 3)))
        hit = np.unique(objects[drawn.touched[index]])
        if index in looked:
            untouched |= (objects > 0) & ~np.isin(objects, hit)
    prediction = np.where(untouched, 0, drawn.truth)  # the promise is true of what is left
    target = Target(drawn.codes, drawn.label_sets, K)
    left = exclude_untouched(prediction, target, target, drawn.statement)
    remaining = target if left is None else left
    in_set = np.take_along_axis(remaining.label_sets[remaining.codes], prediction[..., None], axis=3)[..., 0]
    was_in_set = np.take_along_axis(target.label_sets[target.codes], prediction[..., None], axis=3)[..., 0]
    np.testing.assert_array_equal(in_set, was_in_set)


@pytest.mark.parametrize("shape", [(1, 12, 30), (4, 12, 30)], ids=["2d", "3d"])
def test_a_tumour_drawn_as_liver_or_tumour_keeps_both_classes(shape):
    """Also in a slice with a stroke of liver alone. Exclusions that would hold without sets are reported."""
    label_sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], bool)
    codes = np.full(shape, 3, np.uint8)
    codes[0, 2, 2:6], codes[0, 6:8, 20:25], codes[0, 10] = 1, 4, 0
    spacing = (5.0, 1.0, 1.0)
    protocol = AnnotationProtocol("slice", {1: 5.0, 2: 5.0}, background_encloses=True)
    left = infer(codes, label_sets, spacing, protocol)
    assert left.label_sets[left.codes][0, 6:8, 20:25].all()
    assert left.label_sets[left.codes][0, 7, 24 + 5, 2] and not left.label_sets[left.codes][0, 0, 2, 2]
    actual = {item.promise: item for item in find_kept_open(codes, label_sets, spacing, protocol)}
    assert actual.keys() == {"classes_complete_in", "reach_mm"}
    complete = actual["classes_complete_in"]
    assert (complete.voxel, complete.classes, complete.kept, complete.n_voxels) == ((0, 6, 20), (1, 2), (2,), 10)
    assert actual["reach_mm"].kept == (1,)


def test_every_combination_keeps_the_farthest_voxel_of_a_sphere():
    """Strokes in every third slice: within a slice the border is out of reach, through the volume it is not."""
    z, y, x = np.indices((20, 40, 40))
    truth = ((z - 10) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 9**2).astype(int)
    label_sets = np.array([[1, 0], [0, 1], [1, 1]], bool)
    codes = np.full(truth.shape, 2, np.uint8)
    codes[::3, 2], codes[10, 20, 12:29] = 0, 1
    for number in range(0, 20, 3):
        rows = np.argwhere(truth[number])
        if len(rows):
            codes[(number, *rows[len(rows) // 2])] = 1
    far = ndimage.distance_transform_edt(codes != 1, sampling=(1, 1, 1))[truth == 1].max()
    for complete, reach in itertools.product((None, "slice", "case"), (None, float(far))):
        protocol = AnnotationProtocol(complete, reach, background_encloses=True, slice_axis=0)
        left = infer(codes, label_sets, (1.0, 1.0, 1.0), protocol)
        assert left.label_sets[left.codes][truth == 1, 1].all()


def test_promises_exclude_nothing_of_classes_in_a_set_equal_to_unannotated():
    sets = {"5": ["background", "a", "b"], "6": ["background", "a", "b", "c"]}
    content = {"channel_names": {"0": "CT"}, "labels": dict(zip(NAMES, range(K), strict=True)) | {"ignore": 9}}
    content |= {"file_ending": ".png", "cases": {"x": {"absent": ["c"]}, "y": {"annotated": ["a"]}}}
    for used, annotated in (({"5": sets["5"]}, {3}), ({"6": sets["6"]}, None)):
        labels = Dataset.from_json(content | {"label_sets": used}, name="toy", folder=None).labels
        assert promise_statement(labels, "x").annotated == annotated
        assert promise_statement(labels, "y") == labels.statements["y"]
        assert promise_statement(labels, "z") == CaseStatement()
