"""Counts from the joint histogram equal counts made voxel by voxel, and see only what the reference decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg import Dataset
from autoseg.core.errors import EvaluationError
from autoseg.dataset.labels import CaseStatement, Labels
from autoseg.evaluation import metrics
from autoseg.evaluation.metrics import HeadCounts, count, count_pairs

SHAPES = pytest.mark.parametrize("shape", [(1, 7, 5), (4, 6, 5)], ids=["2d", "3d"])

PLAIN = {"background": 0, "a": 1, "b": 2}
SPARSE = {**PLAIN, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}


def make_labels(labels: dict[str, object], **more: object) -> Labels:
    content = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz", **more}
    if any(isinstance(value, list) for value in labels.values()):
        content["regions_class_order"] = [1, 2]
    return Dataset.from_json(content, name="test", folder=None).labels


def one_by_one(reference: np.ndarray, prediction: np.ndarray, labels: Labels, case: str = "") -> list[HeadCounts]:
    """Decide every voxel for every head by Python sets."""
    sets = labels.sets_by_value(case)
    everything = set(range(labels.n_classes))
    undrawn = everything - labels.statements.get(case, CaseStatement()).absent
    result = []
    for head in labels.heads:
        counts = dict.fromkeys(("tp", "fp", "fn", "tn", "open"), 0)
        for truth, predicted in zip(reference.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            inside = sets[truth] <= set(head.classes)
            if not inside and sets[truth] & set(head.classes):
                counts["open"] += sets[truth] not in (everything, undrawn)
                continue  # undecided
            is_predicted = predicted in head.values
            counts[("t" if is_predicted == inside else "f") + ("p" if is_predicted else "n")] += 1
        result.append(HeadCounts(counts["tp"], counts["fp"], counts["fn"], counts["tn"], counts["open"]))
    return result


def test_hand_computed_counts() -> None:
    reference = np.array([[[0, 0, 1, 1, 2, 2, 3, 3]]], dtype=np.uint8)
    prediction = np.array([[[0, 1, 1, 2, 2, 0, 1, 2]]], dtype=np.uint8)
    background, a, b = count(reference, prediction, make_labels(SPARSE))
    assert background == HeadCounts(true_positive=1, false_positive=1, false_negative=1, true_negative=3)
    assert a == HeadCounts(true_positive=1, false_positive=1, false_negative=1, true_negative=3)
    assert b == HeadCounts(true_positive=1, false_positive=1, false_negative=1, true_negative=3)
    assert (a.dice, a.iou) == (0.5, 1 / 3)
    assert (a.n_prediction, a.n_reference, a.n_decided) == (2, 2, 6)


def test_hand_computed_regions() -> None:
    reference = np.array([[[0, 1, 2, 3, 1]]], dtype=np.uint8)
    prediction = np.array([[[1, 2, 2, 1, 0]]], dtype=np.uint8)
    whole, core = count(reference, prediction, make_labels(REGIONS))
    assert whole == HeadCounts(true_positive=2, false_positive=1, false_negative=1, true_negative=0)
    assert core == HeadCounts(true_positive=1, false_positive=1, false_negative=0, true_negative=2)


def test_a_label_set_decides_what_lies_in_it_or_outside() -> None:
    labels = make_labels({**PLAIN, "c": 3}, label_sets={"5": ["a", "b"]})
    reference = np.full((1, 1, 4), 5, dtype=np.uint8)
    prediction = np.array([[[0, 1, 2, 3]]], dtype=np.uint8)
    background, a, b, c = count(reference, prediction, labels)
    assert background == HeadCounts(0, 1, 0, 3)
    assert c == HeadCounts(0, 1, 0, 3)
    assert a == b == HeadCounts(0, 0, 0, 0, n_open=4)


def test_what_is_said_of_a_case_decides_its_heads() -> None:
    labels = make_labels(SPARSE, cases={"lazy": {"absent": ["b"]}, "partly": {"annotated": ["a"]}})
    reference = np.array([[[3, 0]]], dtype=np.uint8)
    prediction = np.array([[[2, 2]]], dtype=np.uint8)
    assert count(reference, prediction, labels, "lazy")[2] == HeadCounts(0, 2, 0, 0)
    assert count(reference, prediction, labels, "partly")[2] == HeadCounts(0, 0, 0, 0, n_open=1)
    assert count(reference, prediction, labels, "partly")[1] == HeadCounts(0, 0, 0, 1)


@SHAPES
@pytest.mark.parametrize("chunk", [3, 1 << 19])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_counts_equal_counting_voxel_by_voxel(
    shape: tuple[int, ...], chunk: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "VOXELS", 2 * chunk)
    rng = np.random.default_rng(0)
    labels = make_labels(
        {**PLAIN, "c": 3, "d": 4, "ignore": 255},
        label_sets={"7": ["a", "b"], "9": ["background", "d"]},
        cases={"x": {"absent": ["c"]}, "y": {"annotated": ["a", "b"]}},
    )
    reference = rng.choice([0, 1, 2, 3, 4, 7, 9, 255], size=shape).astype(dtype)
    prediction = rng.integers(0, 5, size=shape).astype(dtype)
    for case in ("x", "y", "z"):
        assert list(count(reference, prediction, labels, case)) == one_by_one(reference, prediction, labels, case)


@pytest.mark.parametrize("run", [1, 2, 3, 4, 5, 9, 1000])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 19])
def test_counts_do_not_depend_on_how_long_values_stay_the_same(
    run: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long runs are counted whole, short ones voxel by voxel, per chunk of whatever size."""
    monkeypatch.setattr(metrics, "VOXELS", 2 * chunk)
    rng = np.random.default_rng(run)
    reference, prediction = (np.repeat(rng.integers(0, 4, size=90), run)[: 4 * 5 * 6] for _ in range(2))
    prediction = np.roll(np.resize(prediction, 120), 1)
    reference = np.resize(reference, 120)
    pairs = count_pairs(reference.reshape(4, 5, 6), prediction.reshape(4, 5, 6))
    for row, truth in enumerate(pairs.reference_values):
        for column, predicted in enumerate(pairs.prediction_values):
            assert pairs.counts[row, column] == np.sum((reference == truth) & (prediction == predicted))
    assert pairs.counts.sum() == 120
    assert pairs.counts.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_label_sets_and_regions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["a", "b", "c"]
    sets = {str(value): list(rng.choice(names, size=2, replace=False)) for value in (6, 7)}
    regions = {"background": 0, "one": [1, 2, 3], "two": [2, 3], "three": [3], "ignore": 8}
    for labels in (
        make_labels({"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 8}, label_sets=sets),
        make_labels({"background": 0, "a": 1, "b": 2, "c": 3}, label_sets=sets),
        Dataset.from_json(
            {"channel_names": {"0": "CT"}, "labels": regions, "regions_class_order": [1, 2, 3], "numTraining": 1,
             "file_ending": ".png"}, name="regions", folder=None,
        ).labels,
    ):  # fmt: skip
        reference = rng.choice(labels.file_values(), size=(2, 3, 4))
        prediction = rng.choice(labels.class_values, size=(2, 3, 4))
        assert list(count(reference, prediction, labels)) == one_by_one(reference, prediction, labels)


@SHAPES
@pytest.mark.parametrize("declared", [SPARSE, REGIONS], ids=["classes", "regions"])
def test_nothing_depends_on_the_prediction_where_nothing_is_known(
    shape: tuple[int, ...], declared: dict[str, object]
) -> None:
    rng = np.random.default_rng(1)
    labels = make_labels(declared)
    reference = rng.integers(0, 4, size=shape).astype(np.uint8)
    prediction = rng.integers(0, 3, size=shape).astype(np.uint8)
    scrambled = np.where(reference == 3, rng.integers(0, 3, size=shape), prediction).astype(np.uint8)
    assert (scrambled != prediction).any()
    assert count(reference, prediction, labels) == count(reference, scrambled, labels)


def test_dice_and_iou_are_none_without_a_voxel_and_zero_for_a_false_alarm() -> None:
    nothing, alarm = HeadCounts(0, 0, 0, 10), HeadCounts(0, 3, 0, 7)
    assert (nothing.dice, nothing.iou) == (None, None)
    assert (alarm.dice, alarm.iou) == (0, 0)


def test_an_empty_map_has_no_counts() -> None:
    empty = np.zeros((0, 4, 4), dtype=np.uint8)
    assert count(empty, empty, make_labels(PLAIN)) == (HeadCounts(0, 0, 0, 0),) * 3


@pytest.mark.parametrize("offset", [0, -300, 70_000, 1 << 40])
@pytest.mark.parametrize("spread", [1, 1 << 30])
def test_pairs_of_any_values_are_counted(offset: int, spread: int) -> None:
    reference = spread * np.array([1, 1, 5, 5, 5]) + offset
    prediction = spread * np.array([2, 2, 2, 9, 9]) - offset
    pairs = count_pairs(reference, prediction)
    assert pairs.reference_values.tolist() == [spread + offset, 5 * spread + offset]
    assert pairs.prediction_values.tolist() == [2 * spread - offset, 9 * spread - offset]
    assert pairs.counts.tolist() == [[2, 0], [1, 2]]


def test_a_mask_of_booleans_counts_as_0_and_1() -> None:
    mask = np.array([[[True, False]]])
    assert count(mask, mask, make_labels({"background": 0, "a": 1}))[1] == HeadCounts(1, 0, 0, 1)


def test_every_undeclared_value_is_named_with_its_voxels() -> None:
    reference = np.array([[[0, 8, 8, 9]]], dtype=np.uint8)
    prediction = np.array([[[0, 3, 3, 7]]], dtype=np.uint8)
    with pytest.raises(EvaluationError) as caught:
        count(reference, prediction, make_labels(SPARSE), "case_1")
    first, second = str(caught.value).splitlines()
    assert "reference of case 'case_1': found undeclared values 8 (2 voxels), 9 (1 voxels), expected only" in first
    assert "prediction of case 'case_1': found values 3 (2 voxels), 7 (1 voxels), expected one of the classes" in second
    assert "3 is the ignore value, which no model predicts" in second


def test_shapes_must_agree() -> None:
    with pytest.raises(EvaluationError, match=r"found shape \(1, 2, 3\), expected \(1, 3, 2\)"):
        count_pairs(np.zeros((1, 3, 2), dtype=np.uint8), np.zeros((1, 2, 3), dtype=np.uint8))


def test_images_are_not_counted_as_label_maps() -> None:
    values = np.arange(5000).reshape(1, 50, 100)
    with pytest.raises(EvaluationError, match=r"5000 .*reference and 5000 .*prediction"):
        count_pairs(values, values)
